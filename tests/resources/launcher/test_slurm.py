"""Slurm's own queue: jobs wait for GPUs, end at their walltime and go on, and are found again."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from resources.errors import BadInput
from resources.launcher.attempt import JobError, JobLost
from resources.launcher.deployment import Deployment
from resources.launcher.protocol import Busy, Ending, Order
from resources.launcher.rundir import RunDir
from resources.launcher.slurm import SlurmLauncher
from tests.resources.launcher.conftest import build_attempt, build_job, family
from tests.resources.launcher.slurm_cluster import GPUS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]


@pytest.fixture
def launcher() -> SlurmLauncher:
    found = Deployment(backend="slurm", gpus=8).launcher()
    assert isinstance(found, SlurmLauncher)
    return found


def build_order(folder: Path, command: str, gpus: int = 0) -> Order:
    folder.mkdir(exist_ok=True)
    return Order(("/bin/sh", "-c", command), {}, folder, folder.name, gpus=gpus, minutes=5)


def await_true(condition: Callable[[], object], patience_s: float = 20) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_jobs_of_five_gpus_run_behind_each_other_and_a_queued_one_is_cancelled(
    tmp_path: Path, launcher: SlurmLauncher
) -> None:
    first, second, third = (
        launcher.submit(build_order(tmp_path / name, "echo $CUDA_VISIBLE_DEVICES; sleep 2", gpus=5)) for name in "abc"
    )
    await_true(lambda: launcher.status(first) == "running")
    await_true(lambda: launcher.status(second) == "pending (Resources)")
    launcher.cancel(third)
    assert not launcher.alive(third) and launcher.ending(third) == "cancelled"
    await_true(lambda: RunDir(tmp_path / "b").exit_code() == 0)
    assert (tmp_path / "a" / "stdout.log").read_text() == "0,1,2,3,4\n"
    assert (tmp_path / "b" / "stdout.log").read_text() == "0,1,2,3,4\n"
    assert not (tmp_path / "c" / "stdout.log").exists()


def test_a_job_submitted_from_inside_an_allocation_gets_what_it_asks_for_and_not_the_allocations_share(
    tmp_path: Path, launcher: SlurmLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what `salloc --gpus=1 --mem=200 --gpus-per-task=1` sets."""
    for name, value in (("SLURM_GPUS", "1"), ("SLURM_MEM_PER_NODE", "200"), ("SLURM_GPUS_PER_TASK", "1")):
        monkeypatch.setenv(name, value)
    order = build_order(tmp_path / "a", "echo $CUDA_VISIBLE_DEVICES", gpus=4)
    replace(launcher, options=("--mem-per-cpu=100",)).submit(order)
    await_true(lambda: RunDir(tmp_path / "a").exit_code() == 0)
    assert (tmp_path / "a" / "stdout.log").read_text() == "0,1,2,3\n"


def test_the_walltime_warning_lets_the_worker_save_and_the_job_goes_on(tmp_path: Path) -> None:
    """Slurm sends SIGUSR1 to every step before the end; here scancel does, which is the same to the job."""
    warned: list[str] = []
    run = RunDir(tmp_path / "run")

    def hear() -> None:
        if not warned and run.stderr.exists() and "step 5\n" in run.stderr.read_text():
            warned.append(str(run.handle()))
            subprocess.run(["scancel", "--signal=USR1", warned[0]], check=True)

    job = build_job(tmp_path, "save_and_stop", play={"number": 20})
    deployment = Deployment(backend="slurm", gpus=8)
    assert build_attempt(job, tmp_path, deployment, hear).result({}).metrics["number"] == 20
    assert run.handle() != warned[0]
    assert "Interrupted: saved at" in run.stderr.read_text(), "the warning itself ended nothing"
    steps = [line for line in run.stderr.read_text().splitlines() if line.startswith("step ")]
    assert steps == [f"step {number}" for number in range(1, 21)]


def test_a_job_that_heeds_no_warning_is_ended_by_its_walltime_and_goes_on_from_what_it_had_finished(
    tmp_path: Path,
) -> None:
    """At the end Slurm sends SIGTERM to every step; here scancel does, which cancels nothing when it names a signal."""
    run = RunDir(tmp_path / "run")
    due = [("USR1", "step 3\n"), ("TERM", "step 8\n")]
    first: list[str] = []

    def hear() -> None:
        if due and run.stderr.exists() and due[0][1] in run.stderr.read_text():
            first.append(str(run.handle()))
            subprocess.run(["scancel", f"--signal={due.pop(0)[0]}", first[0]], check=True)

    job = build_job(tmp_path, "save_and_stop", play={"number": 50, "text": "deaf"})
    deployment = Deployment(backend="slurm", gpus=8)
    said: list[str] = []
    attempt = build_attempt(job, tmp_path, deployment, hear)
    assert replace(attempt, ears=replace(attempt.ears, say=said.append)).result({}).metrics["number"] == 50
    assert "the walltime ended the job (stopped by SIGTERM); it is submitted again" in said
    assert first == [first[0]] * 2 and run.handle() != first[0]
    steps = [int(line.split()[1]) for line in run.stderr.read_text().splitlines() if line.startswith("step ")]
    # The step at work may have been said without being counted.
    assert set(steps) == set(range(1, 51)) and len(steps) in (50, 51)


def test_a_job_that_makes_room_for_a_more_urgent_one_is_told_so_and_goes_on_after_it(tmp_path: Path) -> None:
    """Where `PreemptMode` is CANCEL; with REQUEUE it stays in the queue."""
    run = RunDir(tmp_path / "run")
    urgent = ["sbatch", "--partition=urgent", f"--gres=gpu:h200:{GPUS}", "--output=/dev/null", "--wrap=sleep 1"]
    preempted: list[str | None] = []
    said: list[str] = []

    def hear() -> None:
        if not preempted and run.stderr.exists() and "step 5\n" in run.stderr.read_text():
            preempted.append(run.handle())
            subprocess.run(urgent, check=True)

    job = build_job(tmp_path, "save_and_stop", play={"number": 20}, gpus=1)
    attempt = build_attempt(job, tmp_path, Deployment(backend="slurm", gpus=GPUS), hear)
    result = replace(attempt, ears=replace(attempt.ears, say=said.append)).result({})
    assert result.metrics["number"] == 20 and [run.handle()] != preempted
    how = r"(saved at \d+|stopped by SIGTERM|killed before it said that its state was saved)"  # as time allows
    told = rf"a more urgent job took its place \({how}\); it is submitted again"
    assert any(re.fullmatch(told, line) for line in said), said
    assert not any("walltime" in line for line in said)


def test_a_job_that_somebody_cancels_in_slurm_is_not_submitted_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")

    def hear() -> None:
        if run.stderr.exists() and "hanging" in run.stderr.read_text():
            subprocess.run(["scancel", str(run.handle())], check=True)

    with pytest.raises(JobError, match="was cancelled by somebody outside Dagster"):
        build_attempt(build_job(tmp_path, "hang"), tmp_path, Deployment(backend="slurm", gpus=8), hear).result({})


def test_a_cancelled_job_that_slurm_has_forgotten_is_lost_and_not_taken_for_one_out_of_time(tmp_path: Path) -> None:
    """As where MinJobAge is a few seconds, or scontrol does not answer just then; it was submitted 50 times."""

    class Forgetful(SlurmLauncher):
        def ending(self, handle: str) -> Ending:
            return super().ending(f"9999{handle}")

    run = RunDir(tmp_path / "run")

    def hear() -> None:
        if run.stderr.exists() and "step 5\n" in run.stderr.read_text():
            subprocess.run(["scancel", str(run.handle())], check=True)

    job = build_job(tmp_path, "save_and_stop", play={"number": 20})
    attempt = build_attempt(job, tmp_path, Deployment(backend="slurm", gpus=8), hear)
    with pytest.raises(JobLost, match="was ended from outside, and the queue does not say by whom"):
        replace(attempt, launcher=Forgetful(sys.executable)).result({})


def test_a_job_whose_node_cannot_open_its_log_says_which_folder_the_node_does_not_see(tmp_path: Path) -> None:
    """As where LORASCOPE_HOME is a folder of the login node's own; Slurm puts a number for %j."""
    job = build_job(tmp_path, "succeed")
    with pytest.raises(JobError, match=rf"cannot write to {tmp_path}/%j/run: LORASCOPE_HOME must be .* every node"):
        build_attempt(job, tmp_path / "%j", Deployment(backend="slurm", gpus=8)).result({})


def test_a_job_whose_node_fails_is_queued_again_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """Slurm itself starts the job anew, under the same number, once the node is back."""
    run = RunDir(tmp_path / "run")
    node = subprocess.run(["sinfo", "-h", "-o", "%N"], capture_output=True, text=True, check=True).stdout.strip()
    failed: list[float] = []

    def hear() -> None:
        if not failed and run.stderr.exists() and "step 5\n" in run.stderr.read_text():
            failed.append(time.monotonic())
            subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"], check=True)
        elif len(failed) == 1 and time.monotonic() - failed[0] > 2:
            failed.append(time.monotonic())
            subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"])

    job = build_job(tmp_path, "save_and_stop", play={"number": 20})
    deployment = Deployment(backend="slurm", gpus=8)
    assert build_attempt(job, tmp_path, deployment, hear).result({}).metrics["number"] == 20
    assert len(failed) == 2
    steps = [line for line in run.stderr.read_text().splitlines() if line.startswith("step ")]
    # The step at work when the node died may have been counted without being said, or said without being counted.
    assert len(steps) in (19, 20, 21) and steps[-1] == "step 20"


def test_a_job_that_slurm_queues_anew_is_waited_for_and_not_submitted_beside_itself(tmp_path: Path) -> None:
    """As after the failure of one node of several; two jobs in one folder empty each other's artifact."""
    run = RunDir(tmp_path / "run")
    handles: list[str | None] = []

    def hear() -> None:
        if not handles and run.stderr.exists() and "step 5\n" in run.stderr.read_text():
            handles.append(run.handle())
            subprocess.run(["scontrol", "requeue", str(handles[0])], check=True)
            # What the batch script on a node that lives may still come to write, after srun has lost the others.
            run.stop.touch()
            run.rc.write_text("143")

    job = build_job(tmp_path, "save_and_stop", play={"number": 20})
    deployment = Deployment(backend="slurm", gpus=8)
    assert build_attempt(job, tmp_path, deployment, hear).result({}).metrics["number"] == 20
    assert handles == [run.handle()]


def test_a_job_that_slurm_starts_anew_finds_no_outcome_of_its_former_attempt(
    tmp_path: Path, launcher: SlurmLauncher
) -> None:
    """A result that is there already would make a success of an attempt that is cut off."""
    run = RunDir(tmp_path / "a")
    order = build_order(run.path, f"ls {run.path}")
    for name in ("rc", "stop", "failure.json", "result.json"):
        (run.path / name).touch()
    handle = launcher.submit(order)
    await_true(lambda: not launcher.alive(handle))
    assert run.stdout.read_text().split() == ["job.sh", "stderr.log", "stdout.log"]


def test_a_job_whose_handle_was_never_written_is_found_and_not_submitted_twice(
    tmp_path: Path, launcher: SlurmLauncher
) -> None:
    order = build_order(tmp_path / "a", "sleep 30")
    handle = launcher.submit(order)
    assert launcher.find(order.run_dir) == handle
    assert launcher.find(build_order(tmp_path / "b", "true").run_dir) is None
    launcher.cancel(handle)


@pytest.mark.parametrize("verb", ["succeed", "fail"])
def test_a_strangers_job_under_a_number_that_was_ours_is_neither_waited_for_nor_cancelled(
    tmp_path: Path, launcher: SlurmLauncher, verb: str
) -> None:
    """As on a cluster that was rebuilt, or in a home that moved to another one: numbers begin at 1 again."""
    stranger = launcher.submit(build_order(tmp_path / "stranger", "sleep 20"))
    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment(backend="slurm", gpus=8))
    attempt.run.prepare(build_job(tmp_path, verb))
    attempt.run.keep_handle(stranger)
    assert attempt.result({}).metrics["number"] == 3
    assert launcher.alive(stranger)
    launcher.cancel(stranger)


def test_commands_go_through_a_prefix_that_takes_one_string_as_ssh_does(
    tmp_path: Path, launcher: SlurmLauncher
) -> None:
    remote = replace(launcher, prefix=("/bin/sh", "-c"))
    handle = remote.submit(build_order(tmp_path / "a b", "echo 'two  words'"))
    await_true(lambda: RunDir(tmp_path / "a b").exit_code() == 0)
    await_true(lambda: not remote.alive(handle))
    assert (tmp_path / "a b" / "stdout.log").read_text() == "two  words\n"


def test_a_refused_submission_is_bad_input_and_a_silent_controller_is_not(
    tmp_path: Path, launcher: SlurmLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=r"Slurm took no job for a, it said: .*partition"):
        replace(launcher, options=("--partition=nowhere",)).submit(build_order(tmp_path / "a", "true"))
    handle = launcher.submit(build_order(tmp_path / "b", "sleep 30"))
    silent = tmp_path / "slurm.conf"
    text = Path(os.environ["SLURM_CONF"]).read_text()
    silent.write_text(
        text.replace("SlurmctldPort=", "SlurmctldPort=1\n#").replace("ClusterName", "MessageTimeout=2\nClusterName")
    )
    with monkeypatch.context() as patched:
        patched.setenv("SLURM_CONF", str(silent))
        assert launcher.status(handle) == "unknown: Slurm does not answer"
        with pytest.raises(Busy, match="does not answer"):
            launcher.submit(build_order(tmp_path / "c", "true"))
    launcher.cancel(handle)


def test_twenty_small_jobs_are_all_accounted_for(tmp_path: Path, launcher: SlurmLauncher) -> None:
    """bench/launcher.py does a hundred."""
    folders = [tmp_path / str(index) for index in range(20)]
    handles = [launcher.submit(build_order(folder, "exit 0")) for folder in folders]
    await_true(lambda: all(RunDir(folder).exit_code() == 0 for folder in folders), 60)
    await_true(lambda: not any(map(launcher.alive, handles)), 30)
    assert len(set(handles)) == 20
    assert not family(tmp_path)
