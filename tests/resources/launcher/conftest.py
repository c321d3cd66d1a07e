"""Both back ends for every fault: processes of this machine, and a real Slurm."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict, Unpack

import pytest
from pydantic import JsonValue

from resources.compute import ComputeConfig
from resources.job import Job
from resources.launcher.attempt import Attempt, Ears
from resources.launcher.deployment import Deployment
from resources.launcher.processes import marked, marker
from resources.launcher.rundir import RunDir
from tests.mounts import mount, unmount

VERBS = "tests.resources.launcher.verbs"


@pytest.fixture(params=["local", pytest.param("slurm", marks=pytest.mark.slow)])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """Each back end in turn, with eight GPUs to give."""
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    return Deployment(backend=request.param, gpus=8, lease_folder=tmp_path / "leases")


@pytest.fixture
def local(tmp_path: Path) -> Deployment:
    """This machine, as if it had eight GPUs."""
    return Deployment(gpus=8, lease_folder=tmp_path / "leases")


def family(root: Path, *names: str) -> list[int]:
    """Every living process of any job whose run directory lies below `root`, or did under one of the names."""
    folders = [root, *(root / name for name in names), *(path for path in root.rglob("*") if path.is_dir())]
    markers = {marker(prefix, folder) for folder in folders for prefix in ("local:", "slurm:")}
    return [pid for pid, found in marked() if found in markers]


@pytest.fixture(autouse=True)
def all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have hidden some."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(autouse=True)
def no_orphans(tmp_path: Path) -> Iterator[None]:
    """No test leaves a process of its jobs behind."""
    yield
    assert not family(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    mount(folder, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    yield folder
    unmount(folder)


class Shape(TypedDict, total=False):
    """How much of a machine a job takes, in `Job`'s own names."""

    gpus: int
    processes: int
    threads: int
    minutes: int
    saving_s: int


def build_job(root: Path, verb: str, *, play: dict[str, JsonValue] | None = None, **shape: Unpack[Shape]) -> Job:
    """A job that calls one of the play-acting verbs."""
    return Job(
        asset="notes",
        key=verb,
        call=f"{VERBS}:{verb}",
        sections={"play": dict(play or {})},
        inputs={},
        out=root / "out",
        scratch=root / "scratch",
        artifact=f"{VERBS}:Note",
        compute=ComputeConfig(profile="cpu"),
        **shape,
    )


def build_attempt(job: Job, root: Path, deployment: Deployment, hear: Callable[[], None] = lambda: None) -> Attempt:
    """An attempt that nobody but the test listens to."""
    said: list[str] = []
    return Attempt(
        job, RunDir(root / "run"), deployment.launcher(), deployment.python, Ears(hear, said.append, time.sleep, bool)
    )
