"""The effort that a section asks for reaches the model, or is refused before anything is asked."""

from typing import Any

import pytest

from resources.errors import BadInput
from resources.llm.ask import ask
from resources.llm.endpoint import Endpoint
from tests.assets.benchmarks.local_server import Reply, chat, serving
from tests.resources.llm.servers import QUICK, SILENT, questions

GOOD = '{"explanation": "e", "classification": 1, "reasoning": "r"}'


def test_a_server_of_ones_own_is_told_the_effort_whatever_its_model_is_called() -> None:
    asked: list[dict[str, Any]] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        asked.append(request)
        return chat(GOOD)

    with serving(answer) as url:
        for effort in ("low", "high", ""):
            endpoint = Endpoint("openai-compatible", "openai/gpt-oss-120b", url, effort, 1000)
            ask(questions(1), 1, endpoint, QUICK, SILENT, "label")
    assert [request.get("reasoning_effort") for request in asked] == ["low", "high", None]


def test_thinking_that_would_take_all_tokens_of_an_answer_is_refused_before_anything_is_asked() -> None:
    asked: list[dict[str, Any]] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        asked.append(request)
        return 400

    with serving(answer) as url:
        endpoint = Endpoint("anthropic", "claude-haiku-4-5", url, "high", 16000)
        with pytest.raises(BadInput, match="effort high lets anthropic/claude-haiku-4-5 think for 16384 tokens"):
            ask(questions(1), 1, endpoint, QUICK, SILENT, "label")
    assert asked == []
