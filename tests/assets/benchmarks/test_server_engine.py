"""The `server` back end against servers that answer oddly, and with the keys of the environment."""

from typing import Any

import pytest

from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.engine import Arm, Completion, Request
from assets.benchmarks.generate_server import ServerEngine
from resources.errors import BadInput
from tests.assets.benchmarks.local_server import Reply, completion, serving

ARM = Arm("base", "weights", None, "v")


def _complete(url: str, *prompts: str) -> dict[int, Completion]:
    engine = ServerEngine(BenchmarksConfig(backend="server", server_url=url, server_requests=2))
    return dict(engine.complete(ARM, [Request(prompt, 9, ("<|im_end|>",), 0.0, 0) for prompt in prompts]))


@pytest.mark.parametrize(
    "reply",
    [
        (200, "<html>Log in</html>", {"Content-Type": "text/html"}),
        (200, '{"id": ', {}),
        {"detail": "who are you?"},
        completion("7", 1, "stop") | {"choices": []},
        completion("Let me th", 3, "abort"),
    ],
)
def test_what_is_no_completion_is_bad_input_that_names_the_server(reply: Reply) -> None:
    with serving(lambda *_: reply) as url, pytest.raises(BadInput, match=rf"the server at {url} .*model base"):
        _complete(url, "a")


def test_a_server_of_ones_own_gets_its_own_key_and_never_a_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        sent.append(request["authorization"])
        return completion("7", 1, "stop")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-vendor")
    with serving(answer, with_key=True) as url:
        monkeypatch.delenv("OPENAI_COMPATIBLE_API_KEY", raising=False)
        _complete(url, "a")
        monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "own-key\n")
        _complete(url, "a")
    assert sent == ["Bearer none", "Bearer own-key"]


def test_one_prompt_that_the_server_refuses_costs_no_other_its_answer() -> None:
    def answer(_: str, request: dict[str, Any]) -> Reply:
        return 422 if request["prompt"] == "bad" else completion(request["prompt"], 1, "stop")

    got: dict[int, str] = {}
    with serving(answer) as url:
        engine = ServerEngine(BenchmarksConfig(backend="server", server_url=url, server_requests=2))
        prompts = ("a", "bad", "b", "c", "d", "e")
        answers = engine.complete(ARM, [Request(prompt, 9, ("<|im_end|>",), 0.0, 0) for prompt in prompts])
        with pytest.raises(BadInput, match="refused a request for model base"):
            for index, found in answers:
                got[index] = found.text
    assert got == {0: "a", 2: "b", 3: "c", 4: "d", 5: "e"}


def test_a_server_that_refuses_everything_is_asked_a_few_times_only() -> None:
    asked: list[str] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        asked.append(request["prompt"])
        return 422

    with serving(answer) as url, pytest.raises(BadInput, match="refused a request"):
        _complete(url, *map(str, range(100)))
    assert len(asked) < 10
