"""compute.yaml, and what a stage gets on the node it describes."""

import os
import sys
from pathlib import Path

import pytest

from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.launcher.command import command
from resources.launcher.deployment import Deployment, load_deployment
from resources.launcher.local import LocalLauncher
from resources.launcher.shape import Shape, shape
from resources.launcher.slurm import SlurmLauncher
from resources.stage import Needs
from tests.resources.launcher.conftest import build_job

NODE = Deployment(gpus=8, cpus=96)


def test_the_file_named_by_the_environment_chooses_the_back_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "compute.yaml"
    path.write_text("backend: slurm\nprefix: [ssh, login]\noptions: [--partition=gpu]\ngpus: 8\n")
    monkeypatch.setenv("LORASCOPE_COMPUTE", str(path))
    launcher = load_deployment().launcher()
    assert isinstance(launcher, SlurmLauncher)
    assert launcher.prefix == ("ssh", "login") and launcher.options == ("--partition=gpu",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpus: 8\nbackend: lsf\n", r":2: backend: Input should be 'local' or 'slurm' \(given: 'lsf'\)$"),
        ("backends: local\n", r":1: unknown key 'backends'; did you mean 'backend'\?$"),
        ("gpus: 8\noptions:\n", r":2: options: Input should be a list such as \[a, b\] \(given: null\)$"),
        ("prefix: ssh login\n", r":1: prefix: Input should be a list such as \[a, b\] \(given: 'ssh login'\)$"),
        ("backend: slurm\nbackend: local\n", r":2: .*backend.* twice"),
        ("backend: [\n", r": not YAML: "),
        ("\xff", r"UTF-8"),
        (None, r"^LORASCOPE_COMPUTE names .*compute\.yaml, which is no file: correct it, or unset it$"),
    ],
)
def test_a_bad_or_missing_file_is_one_line_that_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    path = tmp_path / "compute.yaml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    monkeypatch.setenv("LORASCOPE_COMPUTE", str(path))
    with pytest.raises(BadInput, match=said) as caught:
        load_deployment()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# gpus: 8\n"])
def test_a_file_that_says_nothing_is_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "compute.yaml").write_text(text)
    monkeypatch.setenv("LORASCOPE_COMPUTE", str(tmp_path / "compute.yaml"))
    assert load_deployment() == Deployment()


def test_on_the_cpu_a_parallel_stage_has_one_thread_per_worker_and_any_other_all_cores() -> None:
    cpu = ComputeConfig(profile="cpu", processes=3)
    assert shape(Needs(gpus=8, parallel=True), {}, cpu, NODE) == Shape(0, 3, 1)
    assert shape(Needs(gpus=1), {}, cpu, NODE) == Shape(0, 1, 96)


def test_on_the_node_there_is_one_process_per_gpu_and_cores_are_divided_by_gpus() -> None:
    gpu = ComputeConfig(profile="8xH200")
    assert shape(Needs(gpus=8, parallel=True), {}, gpu, NODE) == Shape(8, 8, 12)
    assert shape(Needs(gpus=1), {}, gpu, NODE) == Shape(1, 1, 12)
    assert shape(Needs(gpus=4), {}, gpu, NODE) == Shape(4, 1, 48)
    assert shape(Needs(), {}, gpu, NODE) == Shape(0, 1, 96)


def test_a_smaller_node_gives_the_gpus_it_has_and_one_without_is_asked_in_vain() -> None:
    gpu = ComputeConfig(profile="8xH200")
    assert shape(Needs(gpus=8, parallel=True), {}, gpu, Deployment(gpus=3, cpus=96)) == Shape(3, 3, 32)
    assert shape(Needs(gpus=1), {}, gpu, Deployment(gpus=3, cpus=96)) == Shape(1, 1, 32)
    assert shape(Needs(gpus=8, parallel=True), {}, gpu, Deployment(gpus=0, cpus=96)) == Shape(8, 8, 12)


def test_a_stage_that_waits_for_paid_answers_leaves_the_nodes_cores_to_jobs_with_gpus() -> None:
    paid = Needs(cost_model="room.estimate:dollars")
    assert shape(paid, {}, ComputeConfig(), NODE) == Shape(0, 1, 4)
    assert shape(paid, {}, ComputeConfig(), Deployment(cpus=2)) == Shape(0, 1, 2)


def test_jobs_without_gpus_run_here_or_with_options_of_their_own_and_jobs_with_gpus_are_queued_as_ever() -> None:
    queue = Deployment(backend="slurm", gpus=8, cpus=96, python="/on/nodes", options=("--partition=gpu",))
    assert queue.for_gpus(0) is queue and queue.for_gpus(8) is queue
    apart = queue.model_copy(update={"cpu_options": ("--partition=cpu",)})
    assert apart.for_gpus(1) is apart
    found = apart.for_gpus(0).launcher()
    assert isinstance(found, SlurmLauncher) and found.options == ("--partition=cpu",)
    here = Deployment(backend="slurm", prefix=("ssh", "n"), gpus=8, cpus=96, python="/on/nodes", cpu_jobs="local")
    assert here.for_gpus(1) is here and isinstance(here.for_gpus(0).launcher(), LocalLauncher)
    assert (here.for_gpus(0).prefix, here.for_gpus(0).python) == ((), sys.executable)
    assert shape(Needs(), {}, ComputeConfig(profile="8xH200"), here) == Shape(0, 1, len(os.sched_getaffinity(0)))
    assert shape(Needs(gpus=1), {}, ComputeConfig(profile="8xH200"), here) == Shape(1, 1, 12)


def test_a_stage_takes_no_more_threads_than_the_cores_this_process_may_use() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert shape(Needs(), {}, ComputeConfig(), Deployment()) == Shape(0, 1, 1)
    finally:
        os.sched_setaffinity(0, cores)


def test_one_process_runs_plainly_and_several_under_torchrun(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert command(build_job(tmp_path, "succeed"), run, "py") == ("py", "-m", "resources.worker", str(run))
    eight = command(build_job(tmp_path, "succeed", processes=8), run, "py")
    assert "--standalone" in eight and eight[eight.index("--nproc-per-node") + 1] == "8"
