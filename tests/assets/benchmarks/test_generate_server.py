"""The `server` back end against a real HTTP server whose model is the tiny one: the same answers as `hf`."""

from threading import Lock
from typing import Any

import pytest

from assets.benchmarks.artifact import BenchmarkScores
from assets.benchmarks.engine import Arm, Request
from assets.benchmarks.generate_hf import HfEngine
from resources.errors import BadInput
from tests.assets.benchmarks.conftest import World
from tests.assets.benchmarks.local_server import Reply, completion, serving


def test_a_server_gives_the_answers_of_the_hf_back_end(world: World) -> None:
    asked: list[dict[str, Any]] = []
    engine, lock = HfEngine(world.model, "cpu", 1), Lock()
    arms = {"base": Arm("base", world.model.name, None, "b"), "lora": Arm("lora", world.model.name, world.lora, "l")}

    def answer(path: str, request: dict[str, Any]) -> Reply:
        assert path == "/v1/completions"
        with lock:
            asked.append(request)
            wanted = Request(request["prompt"], request["max_tokens"], tuple(request["stop"]), 0.0, 0)
            ((_, found),) = engine.complete(arms[request["model"]], [wanted])
        return completion(found.text, found.num_tokens, found.finish)

    config = {"arms": ("base", "lora"), "tasks": ("mini_hard", "mini_choice")}
    with serving(answer) as url:
        world.score("served", backend="server", server_url=url, **config)
    world.score("local", **config)
    served, local = (BenchmarkScores.open(world.out(name)).records() for name in ("served", "local"))
    assert served.equals(local)
    assert len(asked) == 40
    assert asked[0]["stop"] == ["<|im_end|>", "<|endoftext|>"]
    assert asked[0]["skip_special_tokens"] is False
    assert {request["temperature"] for request in asked} == {0.0}


def test_a_stop_string_that_a_server_leaves_in_is_cut(world: World) -> None:
    config = {"arms": ("base",), "tasks": ("mini_hard",), "limit": 1, "backend": "server"}
    with serving(lambda *_: completion("7<|im_end|>\n<|im_start|>user", 4, "length")) as url:
        world.score(server_url=url, **config)
    (record,) = BenchmarkScores.open(world.out()).records().to_pylist()
    assert (record["output"], record["truncated"], record["tokens"]) == ("7", True, 4)


def test_the_url_may_name_the_arm(world: World) -> None:
    paths: list[str] = []

    def answer(path: str, request: dict[str, Any]) -> Reply:
        paths.append(f"{path} {request['model']}")
        return completion("7", 1, "stop")

    with serving(answer) as url:
        config = {"arms": ("base", "lora"), "tasks": ("mini_hard",), "limit": 1, "backend": "server"}
        world.score(server_url=url.replace("/v1", "/{arm}/v1"), **config)
    assert sorted(paths) == ["/base/v1/completions base", "/lora/v1/completions lora"]


def test_a_server_that_is_not_there_is_named(world: World) -> None:
    with serving(lambda *_: completion("7", 1, "stop")) as url:
        pass
    with pytest.raises(BadInput, match=r"no server answers at http://127\.0\.0\.1:\d+/v1"):
        world.score(backend="server", server_url=url, tasks=("mini_hard",), arms=("base",), limit=1)


def test_a_model_that_the_server_does_not_have_is_named(world: World) -> None:
    with serving(lambda *_: 404) as url, pytest.raises(BadInput, match="refused a request for model base"):
        world.score(backend="server", server_url=url, tasks=("mini_hard",), arms=("base",), limit=1)


def test_answers_that_came_before_a_failure_are_kept(world: World) -> None:
    served: list[str] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        served.append(request["prompt"])
        return completion("7", 1, "stop") if len(served) <= 6 else 400

    config = {"backend": "server", "tasks": ("mini_hard",), "arms": ("base",), "server_requests": 1, "shard_size": 2}
    with serving(answer) as url:
        with pytest.raises(BadInput, match="refused"):
            world.score("first", server_url=url, **config)
        served.clear()
        world.score("second", server_url=url, **config, limit=6)
    assert served == []
