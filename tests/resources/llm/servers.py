"""Start the fault server in its own process, ask it questions, read its counts."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from resources.compute import ComputeConfig
from resources.llm.cache import FILE_NAME, ResponseCache
from resources.llm.endpoint import Endpoint, Provider
from resources.llm.limits import Limits
from resources.llm.question import Question
from resources.progress import Progress
from tests.resources.llm.fault_server import Settings

PROJECT = Path(__file__).resolve().parents[3]
SILENT = Progress(lambda _: None)
KEY = "sk-secret-0123456789abcdef"
QUICK = replace(
    Limits.of(ComputeConfig(llm_concurrency=16, llm_attempts=8, llm_timeout_s=2.5, llm_poll_s=0.02)),
    unusable=6,
    backoff_s=0.01,
)
BATCH = replace(QUICK, mode="batch")


class Label(BaseModel, extra="forbid"):
    """An answer in the shape of B.1."""

    explanation: str
    classification: Literal[0, 1, 2]
    reasoning: str


@dataclass(frozen=True)
class Server:
    """A running fault server."""

    port: int
    process: subprocess.Popen

    def counts(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_counts", timeout=5) as reply:
            return json.load(reply)

    def endpoint(self, provider: Provider = "openai", **changes: Any) -> Endpoint:
        model = "claude-haiku-4-5" if provider == "anthropic" else "gpt-5-mini"
        path = "" if provider == "anthropic" else "/v1"
        values = {"model": model, "base_url": f"http://127.0.0.1:{self.port}{path}", "max_output_tokens": 1000}
        return Endpoint(provider=provider, **(values | changes))


@contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.resources.llm.fault_server", json.dumps(asdict(settings))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT)
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline()), process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def questions(count: int, size: int = 200, start: int = 0) -> list[Question]:
    return [
        Question(f"latent:{number}", "Explain.", f"unit {number} " + "x" * size, Label, "v1")
        for number in range(start, start + count)
    ]


def batches_noted(home: Path, endpoint: str) -> bool:
    with closing(ResponseCache(home / FILE_NAME)) as cache:
        return bool(cache.batches(endpoint))


def set_aside(home: Path) -> int:
    """How many reservations are open."""
    with closing(ResponseCache(home / FILE_NAME)) as cache:
        return cache.connection.execute("select count(*) from reserved").fetchone()[0]


def wait_until(true: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
