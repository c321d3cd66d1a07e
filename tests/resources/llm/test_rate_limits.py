"""Rate limits: who has to wait keeps its tries, and nobody waits longer than the longest wait."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from resources.llm import failures, pace
from resources.llm.ask import ask
from resources.llm.endpoint import Endpoint
from tests.assets.benchmarks.local_server import Reply, chat, serving
from tests.resources.llm.servers import QUICK, SILENT, questions

GOOD = '{"explanation": "e", "classification": 1, "reasoning": "r"}'
BUSY = {"error": {"message": "slow down", "type": "rate_limit_error"}}


def _endpoint(url: str) -> Endpoint:
    return Endpoint("openai-compatible", "m", url, max_output_tokens=1000)


def _so_many_per(seconds: float, most: int) -> Callable[[str, dict[str, Any]], Reply]:
    """Answers `most` requests in each span of time; the others shall come again in the next."""
    served: dict[int, int] = {}

    def answer(_: str, __: dict[str, Any]) -> Reply:
        span = int(time.monotonic() / seconds)
        served[span] = served.get(span, 0) + 1
        return chat(GOOD) if served[span] <= most else (429, BUSY, {"retry-after-ms": str(1000 * seconds)})

    return answer


def test_a_question_that_waits_while_others_are_served_loses_no_try() -> None:
    with serving(_so_many_per(0.3, 3)) as url:
        asked = ask(questions(60), 60, _endpoint(url), replace(QUICK, attempts=2), SILENT, "label")
    assert [answer.failure for answer in asked.answers.values() if answer.value is None] == []


def test_a_limit_that_lets_nobody_through_is_not_waited_for_without_end() -> None:
    with serving(lambda *_: (429, BUSY, {})) as url:
        asked = ask(questions(2), 2, _endpoint(url), replace(QUICK, attempts=3), SILENT, "label")
    assert [answer.lost for answer in asked.answers.values()] == [True, True]


def test_a_demand_for_an_hour_is_cut_to_the_longest_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pace, failures):
        monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.2, raising=False)
    first = iter([(429, BUSY, {"Retry-After": "8"})])
    began = time.monotonic()
    with serving(lambda *_: next(first, chat(GOOD))) as url:
        asked = ask(questions(1), 1, _endpoint(url), QUICK, SILENT, "label")
    assert asked.bill.requests == 1
    assert time.monotonic() - began < 4
