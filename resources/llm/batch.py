"""The same questions through the vendors' Batch APIs: half the price, up to a day, and a restart finds what was sent.

Round by round: what the cache lacks is noted and sent, the vendor's handle is stored, results are collected into the
cache; errors and unusable answers go into the next round.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate, islice, takewhile
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from resources.errors import BadInput
from resources.llm import exchange
from resources.llm.answers import Answer, Desk
from resources.llm.batch_calls import BatchCalls, Crowded, Gone, Refused, Unrun
from resources.llm.cache import SentBatch, Stored
from resources.llm.endpoint import build_model, proxies_told, settings
from resources.llm.failures import Failure, classify, misfit, redacted
from resources.llm.ledger import OverBudget, Reservation
from resources.llm.lost_batch import find_lost
from resources.llm.question import Question, fitted

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.models.batch import Batch, BatchRequest, BatchResult, EncodedBatchRequest

MOST_REQUESTS = 10_000
"""Requests of one batch; the vendors allow 50,000 and 100,000."""
MOST_BYTES = 80_000_000
"""Of their texts; the vendors allow 200 and 256 MB of JSON, whose escapes can double a text."""
UNTOLD = "the batch ended without a word about it"

Pending = dict[str, tuple[Question, int]]
"""Cache key -> question and attempt."""


class BatchRun:
    """One run over an endpoint's Batch API."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tries: dict[str, int] = {}
        self._reasons: dict[str, str] = {}
        self._rejected: set[str] = set()
        """Keys of requests that would fare no better another time."""
        self._failed: set[str] = set()
        """Keys of requests that the server failed on the last time."""
        self._uncertain: set[str] = set()
        """Keys of requests whose last failure the vendor may have charged."""
        self._too_long: set[str] = set()
        """Keys of requests that the model cannot read whole."""
        self._fatal = ""
        self._most_requests = MOST_REQUESTS

    async def run(self, questions: Iterator[Question]) -> None:
        """Answer every question into the desk.

        Raises:
            BadInput: when the vendor refuses the batch, or at a cap.
        """
        if self._desk.endpoint.provider == "openai-compatible":
            raise BadInput("compute.llm_mode: batch needs provider openai or anthropic; use live")
        import httpx2

        with proxies_told():
            client = httpx2.AsyncClient(timeout=self._desk.limits.timeout_s)
        async with client as http:
            self._model: Model = build_model(self._desk.endpoint, http)
            self._calls = BatchCalls(self._model, self._desk)
            asked = {(q.id, q.sample): fitted(q, self._desk.endpoint) for q in questions}
            for sent in self._desk.cache.batches(self._desk.endpoint.name):
                if expected := self._expected(asked, sent.keys):
                    await self._take_over(sent, expected)
            while pending := self._pending(asked):
                await self._send(pending)

    def _pending(self, asked: dict[tuple[str, int], Question]) -> Pending:
        """What must still be sent; what is settled goes to the desk."""
        pending: Pending = {}
        settled: list[Answer] = []
        for item in [item for item in asked if item not in self._desk.answers]:
            asked[item] = question = self._shortened(asked[item])
            attempt, answer = self._look_up(question)
            if answer is not None:
                settled.append(answer)
            else:
                pending[question.key(self._desk.endpoint, attempt)] = (question, attempt)
        self._desk.take(*settled)
        return pending

    def _shortened(self, question: Question) -> Question:
        """The question as far as the model could read it; as it is where it cannot shrink."""
        keys = (question.key(self._desk.endpoint, attempt) for attempt in range(self._desk.limits.unusable))
        if self._too_long.isdisjoint(keys) or (shorter := question.shorter()) is None:
            return question
        return self._shortened(shorter)

    def _look_up(self, question: Question) -> tuple[int, Answer | None]:
        attempt, answer = self._desk.known(question)
        key = question.key(self._desk.endpoint, attempt)
        if answer is not None:
            return attempt, replace(answer, cached=answer.cached and key not in self._tries)
        if self._tries.get(key, 0) >= self._desk.limits.attempts:
            # The vendor failed on it in every batch and answered others: it would in the next run's too.
            known = key in self._rejected or (key in self._failed and self._desk.requests > 0)
            return attempt, Answer.to(question, None, self._reasons.get(key, UNTOLD), lost=not known)
        return attempt, None

    def _expected(self, asked: dict[tuple[str, int], Question], keys: list[str]) -> Pending:
        """Which of today's unanswered questions a batch of an earlier run holds."""
        known: Pending = {}
        for question in asked.values():
            for attempt in range(self._desk.limits.unusable):
                known[question.key(self._desk.endpoint, attempt)] = (question, attempt)
        return {key: known[key] for key in keys if key in known and self._desk.cache.get(key) is None}

    async def _take_over(self, sent: SentBatch, expected: Pending) -> None:
        """Collect a batch of a run that is gone. What else it holds stays for the run that asks for it."""
        self._desk.ledger.adopt(sent.held)
        if sent.handle:
            batch = _handles().validate_json(sent.handle)
        else:
            key, asked = next(iter(expected.items()))
            request = await self._model.batch_encode(_request(self._desk, key, *asked))
            batch = await self._calls.patiently(lambda: self._find(request, sent))
            if batch is None:
                self._drop(sent)
                return
            sent = self._confirmed(sent, batch)
        try:
            await self._collect(batch, expected, sent)
        except Gone:
            self._give_up(sent)

    async def _send(self, pending: Pending) -> None:
        chunk = _one_upload(pending, self._most_requests)
        try:
            sent = self._note_to_send(chunk)
        except OverBudget as cap:
            chunk = self._affordable(chunk)
            if not chunk:
                raise BadInput(self._desk.so_far(f"stopped at {cap}")) from cap
            sent = self._note_to_send(chunk)
        requests = [await self._model.batch_encode(_request(self._desk, key, *chunk[key])) for key in chunk]
        for key in chunk:
            self._tries[key] = self._tries.get(key, 0) + 1
        batch = await self._create(requests, sent)
        sent = self._confirmed(sent, batch)
        await self._collect(batch, chunk, sent)

    async def _collect(self, batch: "Batch", expected: Pending, sent: SentBatch) -> None:
        began = datetime.fromtimestamp(sent.asked, UTC).isoformat(" ", "minutes")
        self._desk.progress.say(
            f"{self._desk.what}: waiting for batch {batch.id} of {self._desk.endpoint.name}, sent {began} with "
            f"{len(sent.keys)} requests; it may take a day"
        )
        try:
            results = await self._calls.results(batch)
        except Unrun as unrun:
            self._drop(sent)
            if not isinstance(unrun, Crowded) or len(sent.keys) == 1:
                raise
            self._halve(sent)
            return
        self._store(results, expected, sent)
        if any(result.status == "canceled" for result in results):
            raise BadInput(self._desk.so_far(f"{self._desk.endpoint.name}: a batch was cancelled at the vendor's"))

    def _note_to_send(self, chunk: Pending) -> SentBatch:
        """Set the money aside and write down what for, at once: a kill loses neither."""
        with self._desk.ledger.transaction():
            held = self._reserve(chunk)
            sent = SentBatch(f"unconfirmed-{held.id}", "", list(chunk), held, time.time())
            self._desk.cache.add_batch(sent, self._desk.endpoint.name)
        return sent

    async def _create(self, requests: "list[EncodedBatchRequest]", sent: SentBatch) -> "Batch":
        """Let the vendor make the batch. Where an answer got lost it may have done so: then the batch is looked for
        before it is asked for again, by the next run if this one gives up; its money stays aside until then.
        """
        asked = False

        async def create() -> "Batch":
            nonlocal asked
            found = await self._find(requests[0], sent) if asked else None
            asked = True
            return found or await self._model.batch_create(requests)

        try:
            return await self._calls.patiently(create)
        except Refused:
            self._drop(sent)
            raise

    async def _find(self, request: "EncodedBatchRequest", sent: SentBatch) -> "Batch | None":
        known = [batch.id for batch in self._desk.cache.batches(self._desk.endpoint.name)]
        try:
            return await find_lost(self._model, self._calls, request, sent, known)
        except Refused as error:
            # It says nothing of the batch that is looked for, which may run.
            raise BadInput(str(error)) from error

    def _confirmed(self, sent: SentBatch, batch: "Batch") -> SentBatch:
        return self._desk.cache.confirm_batch(sent, batch.id, _handles().dump_json(batch).decode())

    def _drop(self, sent: SentBatch) -> None:
        """The vendor never made it."""
        with self._desk.ledger.transaction():
            self._desk.ledger.settle(sent.held, 0.0)
            self._desk.cache.forget_batch(sent.id)

    def _halve(self, sent: SentBatch) -> None:
        """From now on send fewer at once; the vendor has tried none of these."""
        for key in sent.keys:
            self._tries[key] = self._tries.get(key, 1) - 1
        self._most_requests = min(self._most_requests, len(sent.keys) // 2)
        self._desk.progress.say(
            f"{self._desk.what}: the queue of {self._desk.endpoint.name} has no room for {len(sent.keys)} requests; "
            f"sends {self._most_requests} at once"
        )

    def _give_up(self, sent: SentBatch) -> None:
        """It ran, was paid for, and can be read no longer."""
        self._desk.progress.say(
            f"{self._desk.what}: the results of batch {sent.id} of {self._desk.endpoint.name} are gone; "
            f"its {len(sent.keys)} requests count as paid, and are sent again where they are still asked for"
        )
        with self._desk.ledger.transaction():
            self._desk.ledger.lose(sent.held)
            self._desk.cache.forget_batch(sent.id)

    def _affordable(self, chunk: Pending) -> Pending:
        """The first questions that fit under the cap together, found by halving."""
        while chunk := dict(list(chunk.items())[: len(chunk) // 2]):
            with suppress(OverBudget):
                self._desk.ledger.settle(self._reserve(chunk), 0.0)
                return chunk
        return {}

    def _reserve(self, chunk: Pending) -> Reservation:
        return self._desk.ledger.reserve(sum(self._desk.most(question) for question, _ in chunk.values()))

    def _store(self, results: "Sequence[BatchResult]", expected: Pending, sent: SentBatch) -> None:
        """Answers, their price and the end of the batch at once: a kill leaves all to the next run, or nothing."""
        read = [self._read(result, *expected[result.custom_id]) for result in results if result.custom_id in expected]
        kept = [stored for stored in read if stored is not None]
        ran = {result.custom_id for result in results} & expected.keys() & self._uncertain
        unknown = sum(self._desk.most(expected[key][0]) for key in ran - {stored.key for stored in kept})
        with self._desk.ledger.transaction():
            for stored in kept:
                self._desk.keep(stored)
            self._desk.ledger.settle(sent.held, sum(stored.dollars for stored in kept), unknown)
            if all(key in expected or self._desk.cache.get(key) is not None for key in sent.keys):
                self._desk.cache.forget_batch(sent.id)
        if self._fatal:
            raise BadInput(self._desk.so_far(f"{self._desk.endpoint.name} refuses: {self._fatal}"))

    def _read(self, result: "BatchResult", question: Question, attempt: int) -> Stored | None:
        try:
            response = self._model.batch_decode(result, _request(self._desk, result.custom_id, question, attempt))
        except Exception as error:
            failure = _unrun(result, error) or _unread(error) or classify(error, self._desk.endpoint.provider)
            if failure is None:
                raise
            self._note(result.custom_id, failure)
            return None
        return exchange.stored(question, self._desk.endpoint, attempt, response, self._desk.price)

    def _note(self, key: str, failure: Failure) -> None:
        self._reasons[key] = failure.reason
        if failure.kind == "fatal":
            self._fatal = failure.reason
        if failure.kind == "too long":
            self._too_long.add(key)
        if failure.reached:
            self._failed.add(key)
        self._uncertain.discard(key)
        if failure.charged == "unknown":
            self._uncertain.add(key)
        if failure.kind != "retry":
            self._tries[key] = self._desk.limits.attempts
            self._rejected.add(key)


def _one_upload(pending: Pending, most_requests: int) -> Pending:
    """The first questions that fit into one batch; the most tokens of a text are its bytes."""
    sizes = accumulate(question.most_input_tokens for question, _ in pending.values())
    fitting = sum(1 for _ in takewhile(lambda size: size <= MOST_BYTES, sizes))
    return dict(islice(pending.items(), min(max(1, fitting), most_requests)))


def _unrun(result: "BatchResult", error: Exception) -> Failure | None:
    """Of a request that the vendor never tried, and so has not failed on."""
    if result.status not in ("expired", "canceled"):
        return None
    return Failure("retry", "no", redacted(str(error)), reached=False)


def _unread(error: Exception) -> Failure | None:
    """Of an answer with something that the library does not know yet; it was paid for, and another would be too."""
    if not isinstance(error, ValidationError):
        return None
    return Failure("rejected", "unknown", misfit("the answer cannot be read", error), reached=True)


def _request(desk: Desk, key: str, question: Question, attempt: int) -> "BatchRequest":
    from pydantic_ai.models.batch import BatchRequest

    return BatchRequest(
        custom_id=key,
        messages=exchange.messages(question),
        model_settings=settings(desk.endpoint, question.seed(attempt)),
        model_request_parameters=exchange.parameters(question),
    )


def _handles() -> "TypeAdapter[Any]":
    from pydantic_ai.models.batch import Batch

    return TypeAdapter(Batch)
