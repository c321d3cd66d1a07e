"""A job from submission to result, on both back ends."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from resources.errors import BadInput
from resources.job import Job
from resources.launcher.attempt import JobError, JobLost, Relay
from resources.launcher.deployment import Deployment
from resources.launcher.devices import VISIBLE
from resources.launcher.processes import marker
from resources.launcher.protocol import MARKER, Order
from resources.launcher.rundir import RunDir
from tests.resources.launcher.conftest import build_attempt, build_job, family


class Stopped(BaseException):
    """Stands for the interrupt that Dagster raises in the main thread."""


def test_result_holds_metrics_columns_cost_and_packages(tmp_path: Path, deployment: Deployment) -> None:
    result = build_attempt(build_job(tmp_path, "succeed"), tmp_path, deployment).result({})
    assert result.metrics == {"number": 3, "cost_usd": 0.25}
    assert [(column.name, column.type) for column in result.columns] == [("text", "string"), ("length", "int32")]
    assert result.cost_usd == 0.25
    assert "pyarrow" in result.packages and "torch" not in result.packages
    assert (tmp_path / "out" / "note.txt").read_text() == "hello"


def test_an_error_carries_the_workers_own_traceback(tmp_path: Path, deployment: Deployment) -> None:
    with pytest.raises(JobError, match=r"(?s)^notes failed: .*the answer is 3.*verbs\.py.*in fail.*ZeroDivisionError"):
        build_attempt(build_job(tmp_path, "fail"), tmp_path, deployment).result({})


def test_bad_input_arrives_as_its_one_sentence(tmp_path: Path, deployment: Deployment) -> None:
    with pytest.raises(BadInput) as caught:
        build_attempt(build_job(tmp_path, "refuse"), tmp_path, deployment).result({})
    assert str(caught.value) == "play.text is 'hello': write something kinder"


def test_a_section_that_does_not_fit_its_config_is_bad_input(tmp_path: Path, local: Deployment) -> None:
    with pytest.raises(BadInput, match="section 'play' is not valid"):
        build_attempt(build_job(tmp_path, "succeed", play={"number": -1}), tmp_path, local).result({})


@pytest.mark.slow
def test_all_ranks_finish_before_the_result_counts(tmp_path: Path, deployment: Deployment) -> None:
    job = build_job(tmp_path, "count_ranks", processes=2)
    assert build_attempt(job, tmp_path, deployment).result({}).metrics["number"] == 2
    # Rank 1 writes the note half a second after rank 0 is done.
    assert (tmp_path / "out" / "note.txt").read_text() == "written last"
    stdout = (tmp_path / "run" / "stdout.log").read_text()
    assert "stdout of rank 0" in stdout and "stdout of rank 1" in stdout
    assert (tmp_path / "out" / "1.txt").read_text() == "1"


@pytest.mark.slow
def test_a_job_of_several_ranks_leaves_nothing_in_the_machines_temporary_folder(
    tmp_path: Path, local: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = tmp_path / "machines"
    machines.mkdir()
    monkeypatch.setenv("TMPDIR", str(machines))
    build_attempt(build_job(tmp_path, "count_ranks", processes=2), tmp_path, local).result({})
    assert list(machines.iterdir()) == []


def test_a_first_attempt_finds_nothing_of_another_job_not_even_its_ranks_folders(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    (run.path / "ranks" / "attempt_0").mkdir(parents=True)
    (run.path / "rc").write_text("1")
    run.prepare(build_job(tmp_path, "succeed"))
    assert [file.name for file in run.path.iterdir()] == ["job.json"]


@pytest.mark.slow
def test_the_first_failing_rank_is_named_not_the_one_it_dragged_down(tmp_path: Path, deployment: Deployment) -> None:
    with pytest.raises(JobError, match=r"(?s)failed on rank 1: rank 1 divides by zero.*Traceback"):
        build_attempt(build_job(tmp_path, "fail_on_rank_1", processes=2), tmp_path, deployment).result({})


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_and_its_signal_is_told(tmp_path: Path, deployment: Deployment) -> None:
    with pytest.raises(
        JobError, match=r"(?s)exit code 137 \(signal 9, most often out of memory\).*rank 1 ended: Signal 9"
    ):
        build_attempt(build_job(tmp_path, "die_on_rank_1", processes=2), tmp_path, deployment).result({})


def test_fifty_megabytes_of_output_pass_through_whole(
    tmp_path: Path, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    job = build_job(tmp_path, "chatter", play={"number": 50})
    relay = Relay(RunDir(tmp_path / "run"))
    build_attempt(job, tmp_path, deployment, relay.forward).result({})
    assert len(capsys.readouterr().out) == 50_000_000


@pytest.mark.parametrize(
    ("verb", "message"),
    [("leave_without_result", "left no result.json"), ("truncate_result", "left a damaged result.json")],
)
def test_without_a_whole_result_the_job_has_failed(
    tmp_path: Path, deployment: Deployment, verb: str, message: str
) -> None:
    with pytest.raises(JobError, match=f"exit code 0 and {message}"):
        build_attempt(build_job(tmp_path, verb), tmp_path, deployment).result({})


def test_a_crash_after_the_result_was_written_is_no_failure(tmp_path: Path, deployment: Deployment) -> None:
    job = build_job(tmp_path, "crash_after_result")
    assert build_attempt(job, tmp_path, deployment).result({}).metrics["number"] == 7


def test_a_worker_that_is_done_ends_without_pythons_tidying_up_and_loses_no_word(
    tmp_path: Path, deployment: Deployment
) -> None:
    build_attempt(build_job(tmp_path, "crash_when_python_ends"), tmp_path, deployment).result({})
    run = RunDir(tmp_path / "run")
    _await(lambda: run.exit_code() == 0, 5)
    assert run.stdout.read_text().endswith("the last word")


def test_processes_that_a_job_forgot_end_with_it(tmp_path: Path, deployment: Deployment) -> None:
    build_attempt(build_job(tmp_path, "forget_a_child"), tmp_path, deployment).result({})
    _await(lambda: not family(tmp_path), 5)


@pytest.mark.parametrize("moment", ["starting", "running"])
def test_an_interrupt_ends_every_process_within_ten_seconds(
    tmp_path: Path, deployment: Deployment, moment: str
) -> None:
    run = RunDir(tmp_path / "run")

    def hear() -> None:
        ready = run.stderr.exists() and "hanging" in run.stderr.read_text()
        if ready or (moment == "starting" and run.handle()):
            raise Stopped

    attempt = build_attempt(build_job(tmp_path, "hang_with_stubborn_family"), tmp_path, deployment, hear)
    with pytest.raises(Stopped):
        attempt.result({})
    assert not family(tmp_path)


def test_an_interrupt_while_the_job_is_queued_leaves_nothing_behind(tmp_path: Path, deployment: Deployment) -> None:
    """All GPUs are taken: `local` waits for a lease, Slurm has the job in its queue."""
    launcher = deployment.launcher()
    (tmp_path / "first").mkdir()
    first = launcher.submit(Order(("/bin/sleep", "60"), {}, tmp_path / "first", "first", gpus=8, minutes=5))
    attempt = build_attempt(build_job(tmp_path, "succeed", gpus=8), tmp_path, deployment)

    def say(line: str) -> None:
        if "held by first" in line or "pending (" in line:
            raise Stopped

    with pytest.raises(Stopped):
        replace(attempt, launcher=launcher, ears=replace(attempt.ears, say=say, leave=lambda: False)).result({})
    handle = attempt.run.handle()
    assert handle is None or not launcher.alive(handle)
    launcher.cancel(first)
    assert not (tmp_path / "out" / "note.txt").exists()


def test_an_interrupt_while_the_job_finishes_loses_nothing(tmp_path: Path, deployment: Deployment) -> None:
    """The result is there, the job is not yet gone: a later attempt takes the result and computes nothing."""
    run = RunDir(tmp_path / "run")

    def hear() -> None:
        if run.result() is not None:
            raise Stopped

    job = build_job(tmp_path, "succeed")
    with pytest.raises(Stopped):
        build_attempt(job, tmp_path, deployment, hear).result({})
    handle = run.handle()
    assert build_attempt(job, tmp_path, deployment).result({}).metrics["number"] == 3
    assert run.handle() == handle


def test_a_job_of_another_back_end_is_left_alone(tmp_path: Path, local: Deployment) -> None:
    job = build_job(tmp_path, "succeed")
    attempt = build_attempt(job, tmp_path, local)
    attempt.run.prepare(job)
    attempt.run.keep_handle("7")
    with pytest.raises(BadInput, match=r"^job 7 of this artifact went to another back end, where it may still run"):
        attempt.result({})
    assert attempt.run.handle() == "7"
    attempt.run.rc.write_text("1")
    assert attempt.result({}).metrics["number"] == 3


def test_a_run_in_a_copied_home_leaves_the_job_of_the_original_alone(tmp_path: Path, deployment: Deployment) -> None:
    """The copy holds the handle too, but the job writes to where it was started for."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    run = RunDir(original / "run")

    def twenty(root: Path) -> Job:
        return build_job(root, "save_and_stop", play={"number": 20})

    def hear() -> None:
        if not copy.exists() and run.stderr.exists() and "step 5\n" in run.stderr.read_text():
            shutil.copytree(original, copy)
            assert build_attempt(twenty(copy), copy, deployment).result({}).metrics["number"] == 20

    assert build_attempt(twenty(original), original, deployment, hear).result({}).metrics["number"] == 20
    steps = [line for line in run.stderr.read_text().splitlines() if line.startswith("step ")]
    assert steps == [f"step {number}" for number in range(1, 21)]


def test_what_a_job_said_while_nobody_listened_is_heard_before_its_result_is_taken(
    tmp_path: Path, local: Deployment
) -> None:
    job = build_job(tmp_path, "succeed")
    done = build_attempt(job, tmp_path, local).result({})
    heard: list[Path] = []
    again = build_attempt(job, tmp_path, local, lambda: heard.append(tmp_path))
    assert again.result({}) == done
    assert len(heard) == 1  # and no second job was waited for


@pytest.mark.parametrize("emptied", [False, True])
def test_a_result_is_not_taken_once_the_artifact_has_been_moved_away(
    tmp_path: Path, local: Deployment, emptied: bool
) -> None:
    job = build_job(tmp_path, "succeed")
    build_attempt(job, tmp_path, local).result({})
    first = RunDir(tmp_path / "run").handle()
    (tmp_path / "out").rename(tmp_path / "store")
    if emptied:
        (tmp_path / "out").mkdir()  # as the store does before every attempt
    build_attempt(job, tmp_path, local).result({})
    assert RunDir(tmp_path / "run").handle() != first


def test_a_full_disk_is_named_as_the_reason(tmp_path: Path, deployment: Deployment, small_disk: Path) -> None:
    job = build_job(tmp_path, "chatter", play={"number": 3})
    with pytest.raises(JobError, match="No space left on device"):
        build_attempt(job, small_disk, deployment).result({})


def test_a_job_whose_keeper_is_killed_is_lost_and_leaves_nothing(tmp_path: Path, local: Deployment) -> None:
    with pytest.raises(JobLost, match="vanished without a result"):
        build_attempt(build_job(tmp_path, "vanish"), tmp_path, local).result({})
    assert not family(tmp_path)


def test_what_a_killed_keeper_left_is_swept_at_the_next_start_and_living_jobs_are_not(
    tmp_path: Path, local: Deployment
) -> None:
    for name in ("alive", "next"):
        (tmp_path / name).mkdir()
    launcher = local.launcher()
    alive = launcher.submit(Order(("/bin/sleep", "60"), {}, tmp_path / "alive", "alive"))
    environment = {**os.environ, MARKER: marker("local:", tmp_path / "gone")}
    orphan = subprocess.Popen(["/bin/sleep", "60"], env=environment, start_new_session=True)
    # The kernel shows a process without its environment for a moment while it starts.
    _await(lambda: orphan.pid in family(tmp_path, "gone"), 5)
    following = launcher.submit(Order(("/bin/true",), {}, tmp_path / "next", "next"))
    assert orphan.wait(5) == -signal.SIGKILL
    assert launcher.alive(alive)
    launcher.release(following)
    launcher.cancel(alive)


def test_a_job_without_its_keeper_is_not_found_and_cancelling_it_ends_what_is_left(
    tmp_path: Path, local: Deployment
) -> None:
    launcher = local.launcher()
    (tmp_path / "run").mkdir()
    script = f"sleep 60 & touch {tmp_path}/sleeps; wait"
    order = Order(("/bin/sh", "-c", script), {}, tmp_path / "run", "kept")
    handle = launcher.submit(order)
    _await((tmp_path / "sleeps").exists, 5)
    assert launcher.find(order.run_dir) == handle
    os.kill(int(handle.partition(":")[0]), signal.SIGKILL)
    _await(lambda: not launcher.alive(handle), 5)
    assert launcher.find(order.run_dir) is None and family(tmp_path)
    launcher.cancel(handle)
    assert not family(tmp_path)


def test_cancelling_a_job_that_is_gone_leaves_alone_the_process_that_has_its_number_now(
    tmp_path: Path, local: Deployment
) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        local.launcher().cancel(f"{stranger.pid}:1:{marker('local:', tmp_path)}")
        assert stranger.poll() is None
        stranger.kill()


def test_what_a_job_said_just_before_it_ended_is_heard(tmp_path: Path, local: Deployment) -> None:
    run = RunDir(tmp_path / "run")
    heard: list[int | None] = []

    def hear() -> None:
        heard.append(run.exit_code())
        run.path.mkdir(exist_ok=True)
        run.rc.write_text("0")  # the last line and the end come between this look and the next

    assert build_attempt(build_job(tmp_path, "succeed"), tmp_path, local, hear)._wait("1:1:local:gone") == 0
    assert heard == [None, 0]


def test_a_script_that_somebody_runs_by_hand_is_none_of_the_launchers_jobs(tmp_path: Path, local: Deployment) -> None:
    """What carries a job's marker and has no keeper is killed at the next start; it still sees the job's GPUs."""
    launcher = local.launcher()
    (tmp_path / "first").mkdir()
    command = ("/bin/sh", "-c", 'echo "<$LORASCOPE_JOB>" $CUDA_VISIBLE_DEVICES')
    order = Order(command, {}, tmp_path / "first", "first", gpus=2)
    launcher.release(launcher.submit(order))
    run = RunDir(order.run_dir)
    assert run.stdout.read_text() == f"<{marker('local:', run.path)}> 0,1\n"
    plain = {name: value for name, value in os.environ.items() if name not in (MARKER, VISIBLE)}
    by_hand = subprocess.run(["/bin/sh", run.script], env=plain, capture_output=True, text=True, check=True)
    assert by_hand.stdout == "<> 0,1\n"


def test_fifty_small_jobs_leave_no_process_descriptor_or_file(tmp_path: Path, local: Deployment) -> None:
    launcher = local.launcher()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for index in range(50):
        folder = tmp_path / str(index)
        folder.mkdir()
        run = RunDir(folder)
        handle = launcher.submit(Order(("/bin/true",), {}, folder, "small"))
        while run.exit_code() is None:
            time.sleep(0.005)
        launcher.release(handle)
        assert run.exit_code() == 0
        assert {file.name for file in folder.iterdir()} == {"job.sh", "rc", "stdout.log", "stderr.log"}
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert not family(tmp_path)


def _await(condition: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
