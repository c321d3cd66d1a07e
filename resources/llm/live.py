"""Ask over HTTP with bounded concurrency: one first request alone, then many, all within the budget.

A worker holds one question until it is answered or given up; there are some more of them than requests under way, so
that one is sent while another's answer is stored. A failed try never holds money: it is settled at nothing when the
server surely did not charge it, and at its most when nobody can know.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from resources.errors import BadInput
from resources.llm import exchange
from resources.llm.answers import Answer, Desk
from resources.llm.endpoint import build_model, proxies_told, settings
from resources.llm.failures import Failure, classify
from resources.llm.ledger import OverBudget, Reservation
from resources.llm.pace import Pace, wait_asked
from resources.llm.question import Question, fitted

if TYPE_CHECKING:
    import ssl

    import httpx2
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model

DEAD_AFTER = 3
"""Failed tries in a row, in multiples of the concurrency and at least 30, after which the endpoint counts as down."""
CLIENT_REQUESTS = 4
"""Requests at once that share an HTTP client, whose pool looks at every connection twice for each request."""
SPARE = 4
"""One worker more for every four requests at once."""


class Stop(Exception):
    """No further request is sent; those under way are finished and kept."""


class LiveRun:
    """One run over an endpoint; `run` is called once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._limits = desk.limits
        self._pace = Pace()
        self._slots = asyncio.Semaphore(desk.limits.concurrency)
        self._settled = asyncio.Event()
        self._door = asyncio.Lock()
        self._open = False
        self._failures_in_row = 0
        self._stop: Stop | None = None
        self._random = random.Random(0)
        self._failed: list[tuple[Question, Failure]] = []
        self._last = False
        """Whether those are asked once more."""
        self._answered: Question | None = None
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By cache key."""

    async def run(self, questions: Iterator[Question]) -> None:
        """Answer every question into the desk.

        Raises:
            BadInput: when the endpoint refuses everything or cannot be reached, or at a cap.
        """
        import httpx2

        async with AsyncExitStack() as stack:
            count = math.ceil(self._limits.concurrency / CLIENT_REQUESTS)
            with proxies_told():
                trusted = httpx2.create_ssl_context()
                clients = [await stack.enter_async_context(self._client(trusted)) for _ in range(count)]
            self._models = cycle([build_model(self._desk.endpoint, http) for http in clients])
            await self._all(questions)
            if self._failed and self._stop is None:
                await self._ask_again()
        if self._stop is not None:
            raise BadInput(str(self._stop)) from self._stop

    async def _all(self, questions: Iterator[Question]) -> None:
        workers = [
            asyncio.create_task(self._work(questions))
            for _ in range(self._limits.concurrency + math.ceil(self._limits.concurrency / SPARE))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()

    async def _ask_again(self) -> None:
        """Put what the server failed on to it again, now that nothing else is under way.

        Where it fails still and yet answers another question, running again would not help: such a question counts as
        failed, like a refused one, and the others are worth their money.
        """
        again, self._failed, self._last = self._failed, [], True
        await self._all(question for question, _ in again)
        fault = False
        try:
            fault = bool(self._failed) and await self._answers_another()
        except Stop as stop:
            self._stop = self._stop or stop
        if self._stop is not None:
            return
        tries = f"{2 * self._limits.attempts} tries, while other questions were answered"
        for question, failure in self._failed:
            reason = f"{failure.reason} ({tries})" if fault else failure.reason
            self._desk.take(Answer.to(question, None, reason, lost=not fault))

    async def _answers_another(self) -> bool:
        """Whether the server is well: whether it answers what it has answered before."""
        return self._answered is not None and isinstance(await self._send(self._answered, 0), str)

    @asynccontextmanager
    async def _client(self, trusted: "ssl.SSLContext") -> "AsyncIterator[httpx2.AsyncClient]":
        import httpx2

        async def listen(response: "httpx2.Response") -> None:
            self._pace.hold(wait_asked(response.headers))

        bounds = httpx2.Limits(max_connections=None, max_keepalive_connections=self._limits.concurrency)
        async with httpx2.AsyncClient(
            verify=trusted,
            timeout=self._limits.timeout_s,
            limits=bounds,
            event_hooks={"response": [listen]},
            follow_redirects=True,
        ) as http:
            yield http

    async def _work(self, questions: Iterator[Question]) -> None:
        for question in questions:
            if self._stop is not None:
                return
            try:
                answer = await self._answer(fitted(question, self._desk.endpoint))
            except Stop as stop:
                self._stop = self._stop or stop
                self._settled.set()
                return
            if answer is not None:
                self._desk.take(answer)

    async def _answer(self, question: Question) -> Answer | None:
        """What becomes of a question; None where the server failed on it, which is kept for the end."""
        wrong = ""
        for attempt in range(self._limits.unusable):
            found = self._desk.stored(question, attempt)
            cached = found is not None
            if found is None:
                sent = await self._once(question, attempt)
                if isinstance(sent, Question):
                    return await self._answer(sent)
                if isinstance(sent, Failure) and sent.kind == "retry" and sent.reached:
                    self._failed.append((question, sent))
                    return None
                if isinstance(sent, Failure):
                    return Answer.to(question, None, sent.reason, lost=sent.kind == "retry")
                found = sent
            value, wrong = exchange.read(question, found)
            if value is not None:
                self._answered = question
                return Answer.to(question, value, cached=cached)
        return Answer.to(question, None, f"{wrong} ({self._limits.unusable} answers)")

    async def _once(self, question: Question, attempt: int) -> str | Question | Failure:
        """As `_send`; who asks the same about another item waits for that answer, so that both are told one thing."""
        lock = self._asking.setdefault(question.key(self._desk.endpoint, attempt), asyncio.Lock())
        waited = lock.locked()
        async with lock:
            found = self._desk.stored(question, attempt) if waited else None
            return await self._send(question, attempt) if found is None else found

    async def _send(self, question: Question, attempt: int) -> str | Question | Failure:
        """The stored response; a shorter question where this one is too long; or why there is none."""
        failure = Failure("rejected", "no", "never sent", reached=False)
        turn = tries = 0
        while tries < self._limits.attempts:
            answered = self._desk.requests
            sent = await self._first_or_any(question, attempt)
            if isinstance(sent, str):
                return sent
            failure = sent
            if failure.kind == "too long":
                return question.shorter() or failure
            if failure.kind == "rejected":
                return failure
            await self._back_off(turn, failure)
            turn += 1
            # Who only waits while others are served has not had a try.
            tries += not (failure.crowded and self._desk.requests > answered)
        if not self._open:
            raise Stop(f"{self._desk.endpoint.placed} cannot be reached: {failure.reason}; is the endpoint up?")
        return failure

    async def _first_or_any(self, question: Question, attempt: int) -> str | Failure:
        """One try; until the endpoint has answered anyone, one at a time, so that a wrong key is tried once."""
        if not self._open:
            async with self._door:
                if not self._open:
                    return await self._try(question, attempt)
        return await self._try(question, attempt)

    async def _back_off(self, turn: int, failure: Failure) -> None:
        self._failures_in_row += 1
        if self._failures_in_row > max(30, DEAD_AFTER * self._limits.concurrency) and not self._last:
            raise Stop(self._desk.so_far(f"{self._desk.endpoint.name} went down: {failure.reason}"))
        if failure.wait_s:
            self._pace.hold(failure.wait_s)
        delay = self._limits.backoff_s * min(2**turn, 16) * self._random.uniform(0.5, 1.5)
        await asyncio.sleep(max(delay, failure.wait_s))

    async def _try(self, question: Question, attempt: int) -> str | Failure:
        await self._pace.turn()
        async with self._slots:
            await self._pace.wait()
            reservation = await self._reserve(question)
            response = await self._response(question, attempt, reservation)
        if isinstance(response, Failure):
            return response
        kept = exchange.stored(question, self._desk.endpoint, attempt, response, self._desk.price)
        with self._desk.ledger.transaction():
            self._desk.keep(kept)
            self._desk.ledger.settle(reservation, kept.dollars)
        self._settled.set()
        return kept.response

    async def _response(self, question: Question, attempt: int, reservation: Reservation) -> "ModelResponse | Failure":
        """One request; what failed is settled, what came is the caller's to keep and settle."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                response = await self._request(next(self._models), question, attempt)
        except asyncio.CancelledError:
            self._desk.ledger.lose(reservation)
            raise
        except Exception as error:
            failure = classify(error, self._desk.endpoint.provider)
            self._close(reservation, failure)
            if failure is None:
                raise
            self._open = self._open or (failure.reached and failure.kind != "fatal")
            if failure.kind == "fatal":
                raise Stop(self._desk.so_far(f"{self._desk.endpoint.placed} refuses: {failure.reason}")) from error
            return failure
        self._open = True
        self._failures_in_row = 0
        return response

    async def _request(self, model: "Model", question: Question, attempt: int) -> "ModelResponse":
        chosen = settings(self._desk.endpoint, question.seed(attempt))
        return await model.request(exchange.messages(question), chosen, exchange.parameters(question))

    def _close(self, reservation: Reservation, failure: Failure | None) -> None:
        if failure is None or failure.charged == "unknown":
            self._desk.ledger.lose(reservation)
        else:
            self._desk.ledger.settle(reservation, 0.0)
        self._settled.set()

    async def _reserve(self, question: Question) -> Reservation:
        """Set the most this request can cost aside, waiting while others may give money back."""
        most = self._desk.most(question)
        while True:
            if self._stop is not None:
                raise self._stop
            try:
                return self._desk.ledger.reserve(most)
            except OverBudget as cap:
                if not self._desk.ledger.under_way:
                    raise Stop(self._desk.so_far(f"stopped at {cap}")) from cap
            self._settled.clear()
            await self._settled.wait()
