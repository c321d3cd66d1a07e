"""The client path against a real server with a real model: `transformers serve` over the mini world's model."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resources.llm.ask import ask
from resources.llm.cache import FILE_NAME, ResponseCache
from resources.llm.endpoint import Endpoint
from resources.llm.unconverted import UnconvertedClient
from tests.resources.llm.servers import PROJECT, QUICK, SILENT, questions, wait_until

MODEL = PROJECT / "resources/mini_world/model"
pytest.importorskip("fastapi", reason="transformers serve needs it")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini world's model, told to sample: the shipped one decodes greedily, where no seed matters."""
    folder = tmp_path_factory.mktemp("served")
    for file in MODEL.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").unlink()
    chosen = json.loads((MODEL / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(chosen | {"do_sample": True, "temperature": 1.0}))
    return folder


@pytest.fixture(scope="module")
def address(served: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(served), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: process.poll() is not None or _healthy(port), 200)
        assert process.poll() is None, "transformers serve ended"
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _texts(home: Path) -> dict[str, str]:
    """What the model said, by cache key."""
    cache = ResponseCache(home / FILE_NAME)
    rows = list(cache.rows())
    cache.close()
    assert all(row.output_tokens > 0 and row.input_tokens > 0 for row in rows)
    return {row.key: json.loads(row.response)["parts"][0]["content"] for row in rows}


@pytest.mark.slow
def test_a_real_model_is_asked_once_and_its_nonsense_is_listed_with_a_reason(
    address: str, served: Path, home: Path
) -> None:
    endpoint = Endpoint("openai-compatible", str(served), address, max_output_tokens=24)
    limits = replace(QUICK, concurrency=1, unusable=1, attempts=2, timeout_s=60)
    first = ask(questions(2, size=20), 2, endpoint, limits, SILENT, "label")
    # 800,000 parameters know digits, not JSON: the words come, the schema does not fit.
    assert first.bill.requests == 2
    assert all(answer.value is None and answer.failure for answer in first.answers.values())
    assert len(_texts(home)) == 2
    again = ask(questions(2, size=20), 2, endpoint, limits, SILENT, "label")
    assert again.bill.requests == 0


@pytest.mark.slow
def test_samples_differ_and_another_installation_draws_the_same(
    address: str, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint("openai-compatible", str(served), address, max_output_tokens=24)
    limits = replace(QUICK, concurrency=1, unusable=2, attempts=2, timeout_s=60)
    (question,) = questions(1, size=20)
    found = []
    for name in ("here", "there"):
        monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / name))
        ask([replace(question, sample=n) for n in range(2)], 2, endpoint, limits, SILENT, "label")
        found.append(_texts(tmp_path / name))
    here, there = found
    assert here == there
    assert len(set(here.values())) == 4  # two samples, two attempts each


@pytest.mark.slow
def test_a_streamed_chat_joins_to_the_whole_answer_of_the_same_seed(address: str, served: Path) -> None:
    messages = [{"role": "user", "content": "What is 3 + 4?"}]
    ask_for: dict[str, Any] = {"model": str(served), "messages": messages, "seed": 5, "max_tokens": 16}

    async def both() -> tuple[str, list[str]]:
        async with UnconvertedClient(api_key="none", base_url=address) as client:
            whole: Any = await client.chat.completions.create(
                stream=False, extra_headers=None, extra_body=None, **ask_for
            )
            stream: Any = await client.chat.completions.create(
                stream=True, extra_headers=None, extra_body=None, **ask_for
            )
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        return whole.choices[0].message.content, pieces

    whole, pieces = asyncio.run(both())
    assert "".join(pieces) == whole != ""
    assert len(pieces) > 1
