"""What a vendor says in an error's words alone, whose status would let the run go on or give the question up."""

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from resources.errors import BadInput
from resources.llm.ask import ask
from resources.llm.endpoint import Endpoint
from resources.llm.question import Question
from tests.assets.benchmarks.local_server import Reply, chat, serving
from tests.resources.llm.servers import QUICK, SILENT, Label, questions
from tests.resources.llm.wire import error_body, wire

GOOD = '{"explanation": "e", "classification": 1, "reasoning": "r"}'
REGAIN = "You will regain access on 2026-12-01 at 00:00 UTC."


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, error_body(f"You have reached your specified API usage limits. {REGAIN}", "invalid_request_error")),
        (400, error_body(f"You have reached your specified workspace API usage limits. {REGAIN}", "invalid_request")),
        (429, error_body("Your organization has reached its api usage limits.", "rate_limit_error")),
        (429, error_body("Your tier's limit is reached.", "rate_limit_error", "enforced_spend_limit_reached")),
    ],
)
def test_a_spend_limit_that_is_reached_in_the_middle_ends_the_run_and_fails_no_question(
    status: int, error: dict[str, Any]
) -> None:
    requests = count(1)
    answered = wire("/v1/messages", "claude-haiku-4-5", GOOD, None, 10)

    def answer(_: str, __: dict[str, Any]) -> Reply:
        return answered if next(requests) <= 3 else (status, error, {})

    with serving(answer) as url:
        endpoint = Endpoint("anthropic", "claude-haiku-4-5", url.removesuffix("/v1"), max_output_tokens=1000)
        with pytest.raises(BadInput, match=r" refuses: .*; 3 of 20 questions are answered and kept"):
            ask(questions(20), 20, endpoint, replace(QUICK, concurrency=1), SILENT, "label")
    assert next(requests) == 3 + 1 + 1


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 512 tokens. However, you requested 600 tokens.",
        "You passed 600 input tokens. However, the model's context length is only 512 tokens, resulting in no room.",
    ],
)
def test_a_prompt_that_vllm_calls_too_long_in_either_of_its_ways_is_asked_shorter(words: str) -> None:
    def long_question(blocks: int) -> Question:
        shorter = (lambda: long_question(blocks // 2)) if blocks > 1 else (lambda: None)
        return Question("latent:1", "s", "x" * blocks, Label, "v1", shorter=shorter, note=f"{blocks} blocks")

    def answer(_: str, request: dict[str, Any]) -> Reply:
        fits = len(request["messages"][1]["content"]) <= 4
        return chat(GOOD) if fits else (400, error_body(words, "BadRequestError"), {})

    with serving(answer) as url:
        endpoint = Endpoint("openai-compatible", "m", url, max_output_tokens=1000)
        (answered,) = ask([long_question(16)], 1, endpoint, QUICK, SILENT, "label").answers.values()
    assert (bool(answered.value), answered.note) == (True, "4 blocks")
