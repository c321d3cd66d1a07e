"""Calls about one batch, patient with faults that may pass, and what a vendor may say instead of giving results."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from resources.errors import BadInput
from resources.llm.answers import Desk
from resources.llm.failures import Failure, classify, redacted

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.models.batch import Batch, BatchResult

Result = TypeVar("Result")


class Refused(BadInput):
    """The vendor did not take the batch, so nothing was charged."""


class Unrun(Refused):
    """The vendor took the batch and ran none of its requests."""


class Crowded(Unrun):
    """The vendor's queue has no room for so many tokens at once."""


class Gone(BadInput):
    """The batch ended, and the vendor keeps its results no longer: OpenAI for 30 days, Anthropic for 29."""


class BatchCalls:
    """A model's batches, for one run."""

    def __init__(self, model: "Model", desk: Desk) -> None:
        self._model = model
        self._desk = desk

    async def patiently(self, call: "Callable[[], Awaitable[Result]]") -> Result:
        """Make a call about a batch, again after faults that may pass.

        Raises:
            Refused: when the vendor will not do it.
            BadInput: when it cannot be reached.
        """
        last = Failure("retry", "no", "", reached=False)
        for turn in range(self._desk.limits.attempts):
            try:
                return await call()
            except Exception as error:
                failure = classify(error, self._desk.endpoint.provider)
                if failure is None:
                    raise
                if failure.kind != "retry":
                    raise Refused(
                        self._desk.so_far(f"{self._desk.endpoint.name} refuses the batch: {failure.reason}")
                    ) from error
                last = failure
                await asyncio.sleep(max(failure.wait_s, self._desk.limits.backoff_s * 2**turn))
        raise BadInput(self._desk.so_far(f"{self._desk.endpoint.name} cannot be reached: {last.reason}"))

    async def counted(self, batch: "Batch") -> "Batch":
        """Its state once the vendor has counted its requests: OpenAI does not before it has read the file."""
        while _told(batch := await self.status(batch)).get("status") == "validating":
            await asyncio.sleep(self._desk.limits.poll_s)
        return batch

    async def status(self, batch: "Batch") -> "Batch":
        """Its state."""
        return await self.patiently(lambda: self._model.batch_status(batch))

    async def keys(self, batch: "Batch") -> set[str]:
        """The keys of its requests when it has ended; none where they cannot be had."""
        try:
            return {result.custom_id for result in await self.results(batch)}
        except (Unrun, Gone):
            return set()

    async def results(self, batch: "Batch") -> "Sequence[BatchResult]":
        """Wait for a batch.

        Raises:
            Unrun: when it failed as a whole.
            Crowded: when it did for its size.
            Gone: when its results are kept no longer.
        """
        while batch.status != "ended":
            await asyncio.sleep(self._desk.limits.poll_s)
            batch = await self.status(batch)
        told = _told(batch)
        if told.get("status") == "failed":
            first = (told.get("errors") or [{}])[0]
            why = redacted(str(first.get("message") or first))
            kind = Crowded if first.get("code") == "token_limit_exceeded" else Unrun
            raise kind(self._desk.so_far(f"{self._desk.endpoint.name} ran none of the batch: {why}"))
        try:
            return await self.patiently(lambda: self._model.batch_results(batch))
        except Exception as error:
            if _says_gone(error):
                raise Gone(
                    self._desk.so_far(f"{self._desk.endpoint.name} has no results of batch {batch.id}")
                ) from error
            raise


def _told(batch: "Batch") -> dict[str, Any]:
    """OpenAI's own words about a batch."""
    return batch.provider_details or {}


def _says_gone(error: Exception) -> bool:
    """OpenAI answers 404; of an archived batch at Anthropic's only the SDK says it, by an error of no kind."""
    from anthropic import AnthropicError
    from pydantic_ai.exceptions import ModelNotFoundError

    return isinstance(error.__cause__, ModelNotFoundError) or type(error) is AnthropicError
