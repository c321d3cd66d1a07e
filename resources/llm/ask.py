"""The front door: ask many questions of one endpoint, pay for each once, and say what could not be answered."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from resources.errors import BadInput
from resources.home import find_home
from resources.llm.answers import Answer, Desk
from resources.llm.batch import BatchRun
from resources.llm.cache import FILE_NAME, ResponseCache
from resources.llm.endpoint import Endpoint, api_key
from resources.llm.exchange import CUT
from resources.llm.failures import LATE
from resources.llm.limits import Limits
from resources.llm.live import LiveRun
from resources.llm.question import Question
from resources.llm.turns import turn
from resources.progress import Progress


@dataclass(frozen=True)
class Bill:
    """What a stage has asked for, by the names of its metrics."""

    requests: int = 0
    """Answers paid for in this run, usable or not."""
    cached: int = 0
    """Questions answered from the cache."""
    cost_usd: float = 0.0
    """Known spending of this run."""

    def __add__(self, other: "Bill") -> "Bill":
        """Of both."""
        return Bill(self.requests + other.requests, self.cached + other.cached, self.cost_usd + other.cost_usd)


@dataclass(frozen=True)
class Asked:
    """What a run came to."""

    answers: dict[tuple[str, int], Answer]
    """By question id and sample."""
    bill: Bill
    unknown_usd: float
    """Most that requests without an answer may have cost besides."""

    def check_complete(self) -> None:
        """An artifact would hold what was lost on the way ever after.

        Raises:
            BadInput: when questions have no answer at all.
        """
        lost = [answer for answer in self.answers.values() if answer.lost]
        if lost:
            late = lost[0].failure == LATE
            remedy = "raise compute.llm_timeout_s and run again" if late else "run again when the endpoint is well"
            raise BadInput(
                f"{len(lost)} of {len(self.answers)} questions were left without an answer ({lost[0].failure}): "
                f"{remedy}; every answer is kept"
            )

    def check_usable(self) -> None:
        """Some answers that do not fit are the model's; none that does is a wrong model.

        Raises:
            BadInput: when questions have no answer at all, or no answer can be used.
        """
        self.check_complete()
        unusable = [answer for answer in self.answers.values() if answer.value is None]
        if unusable and len(unusable) == len(self.answers):
            why = unusable[0].failure
            cut = why.startswith(CUT)
            remedy = (
                "raise max_output_tokens of the section that asks" if cut else "ask another model, or another prompt"
            )
            raise BadInput(f"none of {len(unusable)} answers can be used ({why}): {remedy}")


def ask(
    questions: Iterable[Question],
    total: int | Callable[[], int],
    endpoint: Endpoint,
    limits: Limits,
    progress: Progress,
    what: str,
) -> Asked:
    """Answer the questions from the cache, live or in batches; waits while another run asks the same model.

    `total`: how many there are; a function where that is known only as they come: the most that there can be by now.

    Raises:
        BadInput: without a key, with a wrong one, for an unknown model, an endpoint that is down, or at a cap.
        Interrupted: when the walltime is nearly over before the other run has ended.
    """
    api_key(endpoint)
    with closing(ResponseCache(find_home().root / FILE_NAME)) as cache:
        desk = Desk(endpoint, limits, cache, progress, what, total)
        asyncio.run(_run(desk, iter(questions)))
    cached = sum(answer.cached for answer in desk.answers.values())
    return Asked(desk.answers, Bill(desk.requests, cached, desk.ledger.spent), desk.ledger.unknown)


async def _run(desk: Desk, questions: Iterator[Question]) -> None:
    run = BatchRun(desk) if desk.limits.mode == "batch" else LiveRun(desk)
    async with turn(desk, questions) as missing:
        await run.run(missing)
