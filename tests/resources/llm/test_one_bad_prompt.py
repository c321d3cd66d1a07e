"""A prompt that the server always fails on, among others that it answers."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from resources.errors import BadInput
from resources.llm.ask import Asked, ask
from resources.llm.endpoint import Endpoint
from resources.llm.limits import Limits
from resources.llm.question import Question
from tests.assets.benchmarks.local_server import Reply, chat, serving
from tests.resources.llm.fault_server import Settings
from tests.resources.llm.servers import KEY, QUICK, SILENT, questions
from tests.resources.llm.servers import serving as serving_faults

GOOD = '{"explanation": "e", "classification": 1, "reasoning": "r"}'
LIMITS = replace(QUICK, attempts=3)


def _asks(request: dict[str, Any], *numbers: int) -> bool:
    return any(f"unit {number} " in request["messages"][1]["content"] for number in numbers)


def _ask(answer: Callable[[str, dict[str, Any]], Reply], asked: list[Question], limits: Limits = LIMITS) -> Asked:
    with serving(answer) as url:
        endpoint = Endpoint("openai-compatible", "m", "http://model/v1", max_output_tokens=1000)
        return ask(asked, len(asked), replace(endpoint, base_url=url), limits, SILENT, "label")


def test_a_prompt_that_the_server_always_fails_on_is_failed_and_the_others_are_kept() -> None:
    asked = _ask(lambda _, request: 500 if _asks(request, 7) else chat(GOOD), questions(20))
    failed = {answer.id: answer for answer in asked.answers.values() if answer.value is None}
    assert list(failed) == ["latent:7"]
    assert not failed["latent:7"].lost
    assert "500" in failed["latent:7"].failure
    assert failed["latent:7"].failure.endswith("(6 tries, while other questions were answered)")
    asked.check_usable()


def test_more_such_prompts_than_make_an_endpoint_count_as_down_are_failed_too() -> None:
    bad = tuple(range(40, 80))
    asked = _ask(
        lambda _, request: 500 if _asks(request, *bad) else chat(GOOD), questions(80), replace(LIMITS, attempts=1)
    )
    assert sum(answer.value is None and not answer.lost for answer in asked.answers.values()) == 40


def test_who_asks_again_for_that_prompt_alone_gets_the_same() -> None:
    requests = count(1)
    with serving(lambda _, request: 500 if _asks(request, 7) else (next(requests), chat(GOOD))[1]) as url:
        endpoint = Endpoint("openai-compatible", "m", url, max_output_tokens=1000)
        for _ in range(2):
            asked = ask(questions(20), 20, endpoint, LIMITS, SILENT, "label")
            assert [answer.id for answer in asked.answers.values() if answer.value is None] == ["latent:7"]
            asked.check_complete()
    # 19 answers, and one in each run that shows the server to be well
    assert next(requests) == 19 + 2 + 1


def test_a_prompt_that_the_server_answers_in_the_end_is_answered() -> None:
    tries = count(1)

    def answer(_: str, request: dict[str, Any]) -> Reply:
        return 500 if _asks(request, 7) and next(tries) <= LIMITS.attempts + 1 else chat(GOOD)

    asked = _ask(answer, questions(20))
    assert all(answer.value for answer in asked.answers.values())
    assert asked.bill.requests == 20


def test_an_endpoint_that_fails_for_everything_from_some_moment_on_leaves_nothing_marked_as_failed() -> None:
    answered = count(1)
    asked = _ask(lambda *_: chat(GOOD) if next(answered) <= 5 else 500, questions(8), replace(LIMITS, concurrency=1))
    assert sum(answer.lost for answer in asked.answers.values()) == 3
    with pytest.raises(BadInput, match=r"^3 of 8 questions were left without an answer"):
        asked.check_complete()


def test_a_prompt_that_is_answered_too_late_ends_the_run_after_everything_else() -> None:
    def answer(_: str, request: dict[str, Any]) -> Reply:
        time.sleep(1.0 if _asks(request, 7) else 0.0)
        return chat(GOOD)

    asked = _ask(answer, questions(20), replace(LIMITS, attempts=2, timeout_s=0.5))
    assert [answer.id for answer in asked.answers.values() if answer.lost] == ["latent:7"]
    with pytest.raises(BadInput, match=r"^1 of 20 .*: raise compute\.llm_timeout_s"):
        asked.check_complete()


def test_what_a_batch_fails_on_every_time_is_failed_and_the_others_are_kept() -> None:
    limits = replace(QUICK, mode="batch", attempts=2)
    settings = Settings(key=KEY, fault_share=0.3, faults=("500",), seed=1)
    with serving_faults(settings) as server:
        asked = ask(questions(40), 40, server.endpoint(), limits, SILENT, "label")
    failed = [answer for answer in asked.answers.values() if answer.value is None]
    assert 0 < len(failed) < 20
    assert not any(answer.lost for answer in failed)
