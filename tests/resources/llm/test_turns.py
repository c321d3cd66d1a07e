"""Runs that ask the same at one time: who waits, for whom, and how often the vendor is paid."""

import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from resources.errors import Interrupted
from resources.llm.ask import Asked, ask
from resources.llm.turns import lock_path
from resources.lock import try_hold
from resources.progress import Progress
from tests.resources.llm.fault_server import Settings
from tests.resources.llm.servers import KEY, QUICK, SILENT, Server, questions, serving


def _together(server: Server, mode: Literal["live", "batch"], said: list[str]) -> list[Asked]:
    """40 questions, asked by two runs of one process at one time."""
    limits, progress = replace(QUICK, mode=mode), Progress(said.append)
    with ThreadPoolExecutor(2) as runs:
        asked = [runs.submit(ask, questions(40), 40, server.endpoint(), limits, progress, "label") for _ in range(2)]
        return [each.result() for each in asked]


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_what_two_runs_ask_at_one_time_is_paid_once(mode: Literal["live", "batch"]) -> None:
    said: list[str] = []
    with serving(Settings(key=KEY, latency_s=0.2, batch_polls=20)) as server:
        asked = _together(server, mode, said)
        counts = server.counts()
    assert (counts["requests"], counts["repeated"]) == (40, 0)
    assert counts["batches"] == (mode == "batch")
    assert sorted((len(each.answers), each.bill.requests, each.bill.cached) for each in asked) == [
        (40, 0, 40),
        (40, 40, 0),
    ]
    (waiting,) = [line for line in said if "is being asked by" in line]
    # between the other run's lock and its name in the file it is "another run"
    assert re.fullmatch(
        r"openai/gpt-5-mini is being asked by (label \(process \d+ on .+\)|another run); waiting, .*", waiting
    )


def test_who_needs_no_new_answer_or_another_model_waits_for_nobody(home: Path) -> None:
    with serving(Settings(key=KEY)) as server:
        ask(questions(5), 5, server.endpoint(), QUICK, SILENT, "label")
        lock = try_hold(lock_path(home, server.endpoint()))
        assert lock is not None
        with lock:
            for mode in ("live", "batch"):
                asked = ask(questions(5), 5, server.endpoint(), replace(QUICK, mode=mode), SILENT, "label")
                assert (len(asked.answers), asked.bill.cached, asked.bill.requests) == (5, 5, 0)
            other = ask(questions(5), 5, server.endpoint("anthropic"), QUICK, SILENT, "label")
            assert (len(other.answers), other.bill.requests) == (5, 5)


def test_who_waits_for_another_run_ends_when_its_node_wants_that(home: Path) -> None:
    with serving(Settings(key=KEY)) as server:
        lock = try_hold(lock_path(home, server.endpoint()))
        assert lock is not None
        with lock, pytest.raises(Interrupted, match="nothing was asked"):
            ask(questions(5), 5, server.endpoint(), QUICK, Progress(lambda _: None, stop=lambda: True), "label")
        assert server.counts()["requests"] == 0


def test_ctrl_c_ends_the_wait_for_another_run(home: Path) -> None:
    with serving(Settings(key=KEY)) as server:
        lock = try_hold(lock_path(home, server.endpoint()))
        assert lock is not None
        # a shell starts what it puts into the background with this signal ignored
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with lock, pytest.raises(KeyboardInterrupt):
            ask(questions(5), 5, server.endpoint(), QUICK, SILENT, "label")
        interrupt.join()
        signal.signal(signal.SIGINT, before)


def test_a_run_that_was_killed_is_waited_for_by_nobody(home: Path) -> None:
    with serving(Settings(key=KEY)) as server:
        lock_path(home, server.endpoint()).parent.mkdir(parents=True)
        lock_path(home, server.endpoint()).write_text("label (process 1)")
        said: list[str] = []
        asked = ask(questions(5), 5, server.endpoint(), QUICK, Progress(said.append), "label")
    assert len(asked.answers) == 5
    assert not [line for line in said if "waiting" in line]
