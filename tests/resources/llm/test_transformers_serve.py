"""The client path against a real server with a real model: `transformers serve` over the mini world's model."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resources.llm.ask import ask
from resources.llm.cache import FILE_NAME, ResponseCache
from resources.llm.endpoint import Endpoint
from tests.resources.llm.servers import PROJECT, QUICK, SILENT, questions, wait_until

MODEL = PROJECT / "resources/mini_world/model"
pytest.importorskip("fastapi", reason="transformers serve needs it")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(MODEL), "--device", "cpu"]
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


@pytest.mark.slow
def test_a_real_model_is_asked_once_and_its_nonsense_is_listed_with_a_reason(address: str, home: Path) -> None:
    endpoint = Endpoint("openai-compatible", str(MODEL), address, max_output_tokens=24)
    limits = replace(QUICK, concurrency=1, unusable=1, attempts=2, timeout_s=60)
    first = ask(questions(2, size=20), 2, endpoint, limits, SILENT, "label")
    # 800,000 parameters know digits, not JSON: the words come, the schema does not fit.
    assert first.requests == 2
    assert all(answer.value is None and answer.failure for answer in first.answers.values())
    cache = ResponseCache(home / FILE_NAME)
    rows = list(cache.rows())
    cache.close()
    assert len(rows) == 2
    assert all(row.output_tokens > 0 and row.input_tokens > 0 for row in rows)
    again = ask(questions(2, size=20), 2, endpoint, limits, SILENT, "label")
    assert again.requests == 0
