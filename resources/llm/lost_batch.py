"""Finds a batch whose creation was asked for and never confirmed: the process was killed, or the answer got lost.

The vendor runs it and charges for it all the same. Its results carry our keys.
"""

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.models.batch import Batch, EncodedBatchRequest

    from resources.llm.batch_calls import BatchCalls
    from resources.llm.cache import SentBatch

CLOCKS_APART = timedelta(minutes=10)
"""The vendor's clock and ours, at most."""


async def find_lost(
    model: "Model",
    calls: "BatchCalls",
    request: "EncodedBatchRequest",
    sent: "SentBatch",
    known: Collection[str],
) -> "Batch | None":
    """The batch of exactly the keys of `sent` that was made since it was asked for; None: there is none.

    `request` is one of its requests, `known` holds ids of other batches.

    Raises:
        ModelAPIError: when the vendor does not list its batches.
    """
    from pydantic_ai.models.batch import Batch

    since = datetime.fromtimestamp(sent.asked, UTC) - CLOCKS_APART
    async for batch_id, created in _newest_first(model):
        if created < since:
            return None
        handle = Batch(
            id=batch_id,
            model_name=model.model_name,
            provider_name=model.system,
            group=request.group,
            status="in_progress",
            created_at=created,
            request_count=len(sent.keys),
        )
        if batch_id in known or (batch := await calls.counted(handle)).request_count != len(sent.keys):
            continue
        if await calls.keys(batch) == set(sent.keys):
            return batch
    return None


async def _newest_first(model: "Model") -> AsyncIterator[tuple[str, datetime]]:
    """Ids of the account's batches, and when each was made."""
    from anthropic import APIError as AnthropicError
    from anthropic import AsyncAnthropic
    from openai import APIError as OpenAIError
    from pydantic_ai.exceptions import ModelAPIError
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIResponsesModel

    try:
        if isinstance(model, OpenAIResponsesModel):
            async for one in model.client.batches.list(limit=100):
                yield one.id, datetime.fromtimestamp(one.created_at, UTC)
        if isinstance(model, AnthropicModel) and isinstance(model.client, AsyncAnthropic):
            async for one in model.client.beta.messages.batches.list(limit=100):
                yield one.id, one.created_at
    except (OpenAIError, AnthropicError) as error:
        raise ModelAPIError(model.model_name, str(error)) from error
