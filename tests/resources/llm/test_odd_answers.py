"""Answers that no vendor should give: none ends the run with a stack trace, none is paid for again because of it."""

from dataclasses import replace
from typing import Any

import pytest

from resources.llm.ask import Asked, ask
from resources.llm.endpoint import Endpoint, Provider
from tests.assets.benchmarks.local_server import Reply, chat, serving
from tests.resources.llm.servers import QUICK, SILENT, Label, questions

GOOD = '{"explanation": "e", "classification": 1, "reasoning": "r"}'
LIMITS = replace(QUICK, attempts=2, unusable=1)
USAGE = {"input_tokens": 9, "output_tokens": 9}


def _ask(reply: Reply, provider: Provider = "openai-compatible", count: int = 1) -> Asked:
    model = "claude-haiku-4-5" if provider == "anthropic" else "gpt-5-mini"
    with serving(lambda *_: reply) as url:
        endpoint = Endpoint(provider, model, url, max_output_tokens=1000)
        return ask(questions(count), count, endpoint, LIMITS, SILENT, "label")


def _message(*blocks: dict[str, Any]) -> dict[str, Any]:
    """An answer of Anthropic's."""
    fixed = {"id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "stop_sequence": None}
    return fixed | {"content": list(blocks), "stop_reason": "end_turn", "usage": USAGE}


@pytest.mark.parametrize(
    ("provider", "reply"),
    [
        ("openai-compatible", chat(GOOD) | {"choices": []}),
        ("openai", {"detail": "who are you?"}),
        ("openai", {"error": {"message": "upstream broke", "code": 502}}),
        ("openai", chat(GOOD) | {"object": "response", "status": "completed", "output": [{"type": "new", "id": "n"}]}),
        ("anthropic", {"detail": "who are you?"}),
        ("anthropic", _message({"type": "text", "text": GOOD}) | {"usage": None}),
        ("openai-compatible", (200, "<html>Log in</html>", {"Content-Type": "text/html"})),
    ],
)
def test_an_answer_of_another_shape_is_a_failed_try_that_may_have_been_charged(
    provider: Provider, reply: Reply
) -> None:
    asked = _ask(reply, provider)
    (answer,) = asked.answers.values()
    assert (answer.value, answer.lost) == (None, True)
    assert answer.failure
    assert (asked.unknown_usd > 0) == (provider != "openai-compatible")


def test_half_a_surrogate_pair_makes_an_answer_unusable_and_is_kept() -> None:
    asked = _ask(chat("\ud83d"))
    (answer,) = asked.answers.values()
    assert (asked.bill.requests, answer.lost) == (1, False)
    assert "does not fit the schema" in answer.failure


def test_a_block_of_a_kind_that_nobody_knows_is_passed_over() -> None:
    asked = _ask(_message({"type": "brand_new", "x": 1}, {"type": "text", "text": GOOD}), "anthropic")
    assert all(answer.value for answer in asked.answers.values())


def test_an_answer_without_counts_costs_the_most_that_it_can() -> None:
    part = {"type": "output_text", "text": GOOD, "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    fixed = {"id": "r", "object": "response", "created_at": 1, "model": "gpt-5-mini", "status": "completed"}
    asked = _ask(
        fixed | {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "output": [message]}, "openai"
    )
    assert asked.bill.requests == 1
    (question,) = questions(1)
    assert asked.bill.cost_usd == pytest.approx((question.most_input_tokens * 0.25 + 1000 * 2.0) / 1e6)


def test_thinking_of_which_only_the_end_is_marked_is_no_part_of_the_answer() -> None:
    asked = _ask(chat(f'Hm, {{"x"}} or so?\n</think>\n\n{GOOD}'))
    assert all(answer.value for answer in asked.answers.values())
    quoting = GOOD.replace('"e"', '"fires on </think>"')
    (answer,) = _ask(chat(quoting)).answers.values()
    assert isinstance(answer.value, Label)
    assert answer.value.explanation == "fires on </think>"
