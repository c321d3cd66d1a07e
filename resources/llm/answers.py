"""What a run has: the cache it reads and fills, the money it may spend, the answers it got so far."""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel

from resources.llm.cache import ResponseCache, Stored
from resources.llm.endpoint import Endpoint
from resources.llm.exchange import read
from resources.llm.ledger import Ledger
from resources.llm.limits import Limits
from resources.llm.prices import Price, price_of
from resources.llm.question import Question
from resources.progress import Progress


@dataclass(frozen=True)
class Answer:
    """What became of one question."""

    id: str
    sample: int
    note: str
    """What was left out of the question so that it fits."""
    value: BaseModel | None
    failure: str
    """Why there is no value."""
    cached: bool
    lost: bool
    """Nothing came that could be kept: asking again may go better."""

    @classmethod
    def to(
        cls,
        question: Question,
        value: BaseModel | None,
        failure: str = "",
        *,
        cached: bool = False,
        lost: bool = False,
    ) -> "Answer":
        """The answer to a question; the question itself, some 10 kB, is let go."""
        return cls(question.id, question.sample, question.note, value, failure, cached, lost)


class Desk:
    """The shared state of one run."""

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        cache: ResponseCache,
        progress: Progress,
        what: str,
        total: int | Callable[[], int],
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.cache = cache
        self.price: Price = price_of(endpoint, limits.mode)
        self.ledger = Ledger(cache.connection, limits.purse, limits.run_dollars, limits.purse_dollars)
        self.answers: dict[tuple[str, int], Answer] = {}
        """By question id and sample."""
        self.requests = 0
        """Requests answered by the vendor in this run."""
        self.progress = progress
        self.what = what
        """What the questions are for, in a word."""
        self._total = total if callable(total) else lambda: total
        self._found = 0
        """Questions that an earlier run had paid for."""

    def stored(self, question: Question, attempt: int) -> str | None:
        """The response kept from an earlier run."""
        return self.cache.get(question.key(self.endpoint, attempt))

    def known(self, question: Question) -> tuple[int, Answer | None]:
        """The answer that was paid for already, and its attempt; else the first attempt that nobody has made."""
        wrong = ""
        for attempt in range(self.limits.unusable):
            found = self.stored(question, attempt)
            if found is None:
                return attempt, None
            value, wrong = read(question, found)
            if value is not None:
                return attempt, Answer.to(question, value, cached=True)
        return self.limits.unusable - 1, Answer.to(question, None, f"{wrong} ({self.limits.unusable} answers)")

    def keep(self, stored: Stored) -> None:
        """Store a response, before anyone parses it."""
        self.cache.put(stored)
        self.requests += 1

    def most(self, question: Question) -> float:
        """Dollars a request can cost at most."""
        return self.price.dollars(question.most_input_tokens, self.endpoint.max_output_tokens)

    def take(self, *answers: Answer) -> None:
        """Note answers that came together and tell the user where the run stands."""
        for answer in answers:
            self.answers[answer.id, answer.sample] = answer
            self._found += answer.cached
        if answers:
            spent = {"dollars": self.ledger.spent}
            self.progress.step(self.what, len(self.answers), self._total(), spent, self._found)

    def so_far(self, why: str) -> str:
        """`why`, and what is kept and missing."""
        total = self._total()
        missing = total - len(self.answers)
        return (
            f"{why}; {len(self.answers)} of {total} questions are answered and kept in the response cache, "
            f"{missing} are missing, {self.ledger.spent:.4f} dollars spent: run again to go on from here"
        )
