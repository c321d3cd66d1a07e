"""Slurm behind a wrapper or a login shell that greets on standard output: only what was asked for is read."""

import time
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from resources.errors import BadInput
from resources.job import JobResult
from resources.launcher.attempt import Ears, JobError, JobLost
from resources.launcher.deployment import Deployment
from resources.launcher.processes import marker
from resources.launcher.protocol import Order
from resources.launcher.slurm import SlurmLauncher
from tests.resources.launcher.conftest import build_attempt, build_job


class Stopped(BaseException):
    """Stands for the interrupt that Dagster raises in the main thread."""


def stop() -> None:
    raise Stopped


def build_launcher(folder: Path, script: str, options: tuple[str, ...] = ()) -> SlurmLauncher:
    """Every command is answered by a shell script, which finds it in $1."""
    login = folder / "login"
    login.write_text(f"#!/bin/sh\necho Welcome to Cluster; echo quota 42%\n{script}\n")
    login.chmod(0o755)
    return SlurmLauncher("python3", (str(login),), options=options, grace_s=0.1)


def build_order(folder: Path) -> Order:
    (folder / "run").mkdir()
    return Order(("/bin/true",), {}, folder / "run", "notes")


@pytest.mark.parametrize("printed", ["101", "101;cluster", "7\n101"])
def test_the_number_of_a_job_is_found_after_a_greeting(tmp_path: Path, printed: str) -> None:
    assert build_launcher(tmp_path, f"echo '{printed}'").submit(build_order(tmp_path)) == "101"


def test_an_answer_without_a_number_is_no_job_and_is_repeated(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^Slurm took no job for notes, it said: Welcome to Cluster quota 42%; see"):
        build_launcher(tmp_path, "").submit(build_order(tmp_path))


@pytest.mark.parametrize(
    ("answer", "status"),
    [("", ""), ("echo 'state: RUNNING None'", "running"), ("echo 'state: PENDING Resources'", "pending (Resources)")],
)
def test_a_greeting_is_no_state_of_a_job(tmp_path: Path, answer: str, status: str) -> None:
    launcher = build_launcher(tmp_path, answer)
    assert launcher.status("101") == status
    assert launcher.alive("101") is bool(status)


def test_a_submission_asks_for_what_the_order_says(tmp_path: Path) -> None:
    order = replace(build_order(tmp_path), gpus=4, cpus=48, minutes=240)
    line = build_launcher(tmp_path, "").submission(order)
    asked = {"--gres=gpu:h200:4", "--cpus-per-task=48", "--nodes=1", "--ntasks-per-node=1", "--time=240"}
    assert asked <= set(line)
    assert not any(
        option.startswith("--gres") for option in build_launcher(tmp_path, "").submission(replace(order, gpus=0))
    )


def test_our_comment_comes_after_the_operators(tmp_path: Path) -> None:
    line = build_launcher(tmp_path, "", ("--comment=project42",)).submission(build_order(tmp_path))
    theirs, ours = [option for option in line if option.startswith("--comment=")]
    assert theirs == "--comment=project42" and ours.startswith("--comment=slurm:")


def test_a_prefix_that_cannot_be_run_is_said_to_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="needs Slurm's commands on this machine, or a `prefix`"):
        SlurmLauncher("python3", (str(tmp_path / "file"),)).status("101")


def test_cancelling_a_job_that_slurm_does_not_end_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.launcher.slurm.GIVE_UP_S", 0.2)
    said: list[str] = []
    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment(), hear=stop)
    attempt.run.prepare(attempt.job)
    launcher = build_launcher(tmp_path, "echo 101; echo 'state: RUNNING None'")
    with pytest.raises(Stopped):
        replace(attempt, launcher=launcher, ears=Ears(stop, said.append, time.sleep, lambda: False)).result({})
    assert said[-1:] == ["job 101 may still run: whoever runs it does not answer, or does not end it"]


def test_an_interrupt_before_the_number_of_a_job_is_noted_cancels_it(tmp_path: Path) -> None:
    class Interrupted(SlurmLauncher):
        def submit(self, order: Order) -> str:
            stop()
            return super().submit(order)

    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment())
    answers = f"squeue*--me*) echo '101 {marker('slurm:', attempt.run.path)}';; scancel*) echo \"$1\" > $0.cancelled"
    plain = build_launcher(tmp_path, f'case "$1" in {answers};; esac')
    with pytest.raises(Stopped):
        replace(attempt, launcher=Interrupted(plain.python, plain.prefix)).result({})
    assert (tmp_path / "login.cancelled").read_text() == "scancel 101\n"


def test_a_result_that_a_shared_disk_shows_after_the_end_is_waited_for(tmp_path: Path) -> None:
    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment())
    attempt = replace(attempt, launcher=build_launcher(tmp_path, ""))
    attempt.run.prepare(attempt.job)
    result = JobResult(metrics={"number": 3}, columns=[], seconds=1.0, device="cpu", packages={})
    shown = Timer(0.3, (attempt.run.path / "result.json").write_text, [result.model_dump_json()])
    shown.start()
    assert attempt._judge(0, "101") == result
    shown.join()


def test_a_job_whose_memory_ended_is_told_so_and_what_helps(tmp_path: Path) -> None:
    answers = "echo 101;; scontrol*) echo JobId=101 JobState=OUT_OF_MEMORY Reason=OutOfMemory"
    launcher = replace(build_launcher(tmp_path, f'case "$1" in sbatch*) {answers};; esac'), poll_s=0.01)
    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment())
    with pytest.raises(JobError, match=r"^job 101 of notes ran out of memory on its node: .*--mem.*compute\.yaml"):
        replace(attempt, launcher=launcher).result({})


def test_a_job_whose_node_failed_is_lost_and_so_worth_another_attempt_although_it_left_an_exit_code(
    tmp_path: Path,
) -> None:
    answers = "echo 143 > $(dirname $0)/run/rc; echo 101;; scontrol*) echo JobId=101 JobState=NODE_FAIL Reason=NodeDown"
    launcher = replace(build_launcher(tmp_path, f'case "$1" in sbatch*) {answers};; esac'), poll_s=0.01)
    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment())
    with pytest.raises(JobLost, match=r"^the node of job 101 \(notes\) failed$"):
        replace(attempt, launcher=launcher).result({})


WALLTIME = """case "$1" in sbatch*)
    cd $(dirname $0)/run
    if [ -f ../result.json ] && [ -f ../ended ]; then [ -f rc ] || cp ../result.json .; echo 0 > rc
    else touch ../ended stop; echo 143 > rc; fi
    echo 101;;
esac"""
"""The first job is ended by its walltime; the next succeeds if there is a result, and nothing of the first is left."""


def test_a_job_that_the_walltime_ended_is_submitted_again_into_a_folder_without_its_outcome(tmp_path: Path) -> None:
    result = JobResult(metrics={"number": 3}, columns=[], seconds=1.0, device="cpu", packages={})
    (tmp_path / "result.json").write_text(result.model_dump_json())
    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment())
    assert replace(attempt, launcher=replace(build_launcher(tmp_path, WALLTIME), poll_s=0.01)).result({}) == result


def test_a_job_that_saves_nothing_before_its_walltime_is_not_submitted_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.launcher.attempt.MAX_REQUEUES", 2)
    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment())
    with pytest.raises(
        JobError, match=r"^notes was ended by the walltime or a more urgent job 2 times; raise its minutes \(60\)$"
    ):
        replace(attempt, launcher=replace(build_launcher(tmp_path, WALLTIME), poll_s=0.01)).result({})
