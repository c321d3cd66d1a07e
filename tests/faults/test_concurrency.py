"""Many processes on one store and one Dagster instance: every key computed once, nobody stuck, no lock error shown."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from resources.sources import PROJECT
from tests.end_to_end.conftest import Installation, build_installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
LORASCOPE = str(Path(sys.executable).with_name("lorascope"))
TROUBLE = ("Traceback", "database is locked", "OperationalError", "BlockingIOError", "FileExistsError", "Stack Trace")


@pytest.fixture
def crowd(tmp_path: Path) -> Installation:
    """Experiments that share their dataset, and two that do not."""
    tiny = PROJECT / "tests" / "end_to_end" / "tiny.yaml"
    installation = build_installation(tmp_path, [PROJECT / "experiments" / "mini.yaml", tiny])
    for name, knobs in {
        "a": "sae:\n  k: 2\n",
        "b": "sae:\n  k: 3\n",
        "c": "dataset:\n  max_rollouts: 8\n",
        "d": "dataset:\n  max_rollouts: 8\nsae:\n  k: 5\n",
    }.items():
        (installation.experiments / f"{name}.yaml").write_text(f"extends: tiny\n{knobs}")
    return installation


def start(crowd: Installation, experiment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [LORASCOPE, "run", experiment, "s1k_dataset", "--json"],
        env={**crowd.environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end_group(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_eight_processes_compute_each_key_once_and_none_shows_a_lock_error(crowd: Installation) -> None:
    names = ["tiny", "tiny", "a", "b", "c", "d", "c", "a"]
    running = [start(crowd, name) for name in names]
    try:
        done = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            end_group(process)
    for process, (out, err) in zip(running, done, strict=True):
        assert process.returncode == 0, out[-2000:] + err[-3000:]
        assert not [word for word in TROUBLE if word in out + err], err[-3000:]
    caches = Counter(json.loads(out)["s1k_dataset"] for out, _ in done)
    assert caches == {"computed": 2, "hit": 6}
    assert len(list((crowd.home / "store" / "s1k_dataset").iterdir())) == 2
    assert not list((crowd.home / "store" / ".partial").glob("*/*"))
    assert crowd.run("verify").returncode == 0


def test_when_the_one_that_computes_is_killed_a_waiter_goes_on(crowd: Installation) -> None:
    first = start(crowd, "tiny")
    locks = crowd.home / "store" / ".locks"
    waiters: list[subprocess.Popen[str]] = []
    try:
        deadline = time.monotonic() + 100
        while not (held := [path for path in locks.glob("s1k_dataset-*") if path.read_text()]):
            assert time.monotonic() < deadline
            assert first.poll() is None, "it was over before it could be killed"
            time.sleep(0.05)
        assert f"process {first.pid} " in held[0].read_text()
        waiters = [start(crowd, name) for name in ("tiny", "a")]
        time.sleep(1)
        os.killpg(first.pid, signal.SIGKILL)
        done = [process.communicate(timeout=150) for process in waiters]
    finally:
        for process in [first, *waiters]:
            end_group(process)
    for process, (out, err) in zip(waiters, done, strict=True):
        assert process.returncode == 0, out[-2000:] + err[-3000:]
        assert not [word for word in TROUBLE if word in out + err], err[-3000:]
    assert sorted(json.loads(out)["s1k_dataset"] for out, _ in done) == ["computed", "hit"]
