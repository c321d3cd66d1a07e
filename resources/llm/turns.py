"""Runs that put the same kind of question to a model take turns, so that what two of them ask is paid once.

Who had to wait finds the other's answers in the cache, and a batch that is still noted is one of a run that died.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from resources.errors import Interrupted
from resources.keys import digest
from resources.llm.answers import Desk
from resources.llm.endpoint import Endpoint
from resources.llm.question import Question, fitted
from resources.lock import holder_of, sign, try_hold

POLL_S = 0.2
"""Between two looks whether the other run has ended, or whether this one shall."""


def lock_path(root: Path, endpoint: Endpoint) -> Path:
    """The file that a run locks: one for all runs whose questions can have the same key."""
    return root / f"llm_cache.{digest('llm turn', endpoint.identity())}.lock"


@asynccontextmanager
async def turn(desk: Desk, questions: Iterator[Question]) -> AsyncIterator[Iterator[Question]]:
    """Yields what is left to ask while no other run asks this model; waits for one only if answers are missing.

    Raises:
        Interrupted: when the walltime is nearly over before it is this run's turn.
    """
    path = lock_path(desk.cache.path.parent, desk.endpoint)
    lock, rest = try_hold(path), questions
    if lock is None:
        missing = _take_known(desk, questions)
        lock, rest = await _awaited(desk, path) if missing else None, iter(missing)
    if lock is None:
        yield rest
        return
    with lock:
        sign(lock, desk.what)
        yield rest


def _take_known(desk: Desk, questions: Iterable[Question]) -> list[Question]:
    """Settle what earlier runs have paid for; returns the others."""
    missing: list[Question] = []
    for question in questions:
        _, answer = desk.known(fitted(question, desk.endpoint))
        if answer is None:
            missing.append(question)
        else:
            desk.take(answer)
    return missing


async def _awaited(desk: Desk, path: Path) -> IO[str]:
    who = holder_of(path)
    desk.progress.say(f"{desk.endpoint.name} is being asked by {who}; waiting, to pay for no question twice")
    while (lock := try_hold(path)) is None:
        if desk.progress.stopping:
            raise Interrupted(desk.so_far("stopped while another run asked the same model, nothing was asked"))
        await asyncio.sleep(POLL_S)
    return lock
