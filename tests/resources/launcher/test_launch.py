"""The Dagster side: messages, the pool slot, stopping, and what survives a killed step."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from pydantic import JsonValue

from dagster_project.launch import launch
from dagster_project.process import PROCESS_TAG
from dagster_project.slot import POOL, slot
from resources.job import Job, JobResult
from resources.launcher.deployment import Deployment
from resources.launcher.rundir import RunDir
from tests.resources.launcher.conftest import build_attempt, build_job, family
from tests.resources.launcher.kept import said


def materialize(
    job: Job, run_dir: Path, deployment: Deployment, instance: dg.DagsterInstance
) -> tuple[dg.ExecuteInProcessResult, list[JobResult]]:
    """One asset whose only work is to launch the job."""
    results: list[JobResult] = []

    @dg.asset
    def notes(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        results.append(launch(context, job, run_dir, deployment))
        return dg.MaterializeResult()

    return dg.materialize([notes], instance=instance, raise_on_error=False), results


def failure_of(done: dg.ExecuteInProcessResult) -> str:
    failure = done.failure_data_for_node("notes")
    assert failure is not None
    assert failure.error is not None
    return failure.error.to_string()


def test_progress_lines_reach_the_run_log_once_and_in_order(tmp_path: Path, deployment: Deployment) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_job(tmp_path, "succeed", play={"number": 20})
        done, results = materialize(job, tmp_path / "run", deployment, instance)
        assert done.success and results[0].metrics["number"] == 20
        lines = [line for line in said(instance, done.run_id) if line.startswith("line ")]
    assert lines == [f"line {index}" for index in range(20)]


def test_a_job_without_gpus_runs_here_where_those_with_gpus_go_to_a_queue_that_nobody_reaches(tmp_path: Path) -> None:
    queue = Deployment(backend="slurm", prefix=("/nowhere/ssh", "login-node"), gpus=8, cpu_jobs="local")
    with dg.DagsterInstance.ephemeral() as instance:
        done, results = materialize(build_job(tmp_path, "succeed"), tmp_path / "run", queue, instance)
        assert done.success and results[0].device.startswith("cpu")
        lost, _ = materialize(build_job(tmp_path / "b", "succeed", gpus=1), tmp_path / "b" / "run", queue, instance)
    assert "/nowhere/ssh" in failure_of(lost)


def test_messages_of_five_megabytes_arrive_whole(tmp_path: Path, deployment: Deployment) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_job(tmp_path, "shout", play={"number": 5_000_000})
        done, _ = materialize(job, tmp_path / "run", deployment, instance)
        assert done.success
        long = [line for line in said(instance, done.run_id) if len(line) > 1_000_000]
    assert [(line[0], len(line), len(set(line))) for line in long] == [(letter, 5_000_000, 1) for letter in "abc"]


def test_a_running_jobs_picture_is_in_the_assets_metadata_before_it_ends(tmp_path: Path, local: Deployment) -> None:
    with dg.instance_for_test() as instance:
        job = build_job(tmp_path, "paint", play={"text": "not really a PNG"})
        pictures: list[str] = []

        def look() -> None:
            while not pictures and watcher_wanted.is_set():
                found = instance.fetch_observations(dg.AssetKey("notes"), limit=1).records
                seen = [one.asset_observation for one in found if one.asset_observation]
                pictures.extend(str(one.metadata["plot/loss"].value) for one in seen)
                time.sleep(0.05)
            (job.scratch / "seen").touch()

        watcher_wanted = threading.Event()
        watcher_wanted.set()
        watcher = threading.Thread(target=look)
        watcher.start()
        done, results = materialize(job, tmp_path / "run", local, instance)
        watcher_wanted.clear()
        watcher.join()
    assert done.success and results[0].metrics["number"] == 1
    assert pictures == [f"![loss](data:image/png;base64,{base64.b64encode(b'not really a PNG').decode()})"]


def test_the_steps_error_is_the_workers_traceback(tmp_path: Path, local: Deployment) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        done, _ = materialize(build_job(tmp_path, "fail"), tmp_path / "run", local, instance)
        error = failure_of(done)
    assert "ZeroDivisionError: the answer is 3" in error and "verbs.py" in error


def test_a_vanished_job_is_tried_again_and_a_failed_one_is_not(tmp_path: Path, local: Deployment) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        done, results = materialize(build_job(tmp_path, "vanish"), tmp_path / "run", local, instance)
        assert done.success and results[0].metrics["number"] == 2
        assert len(done.events_for_node("notes")) > 0
        restarts = [event for event in done.all_events if event.event_type_value == "STEP_RESTARTED"]
        failed, _ = materialize(build_job(tmp_path / "b", "fail"), tmp_path / "b" / "run", local, instance)
        assert not [event for event in failed.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert len(restarts) == 1


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("", ""),
        (
            "node17",
            " on node17 (if that machine is down: terminate the run in the UI, with 'Force termination immediately')",
        ),
    ],
)
def test_a_job_waits_for_the_slot_says_who_holds_it_and_gives_it_back(host: str, where: str) -> None:
    """Of a process on another machine nobody here can tell whether it lives."""
    with dg.instance_for_test() as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(POOL, 1)
        holder = instance.create_run_for_job(_empty_job)
        assert storage.claim_concurrency_slot(POOL, holder.run_id, "lora_checkpoint").is_claimed
        process = f"{host}/4711:123456/{holder.run_id}" if host else _this_process()
        instance.add_run_tags(holder.run_id, {PROCESS_TAG: process, "dagster/partition": "paper"})
        began = time.monotonic()

        @dg.asset
        def notes(context: dg.AssetExecutionContext) -> None:
            real = context.log.info

            def info(message: str) -> None:
                real(message)
                storage.free_concurrency_slots_for_run(holder.run_id)

            context.log.info = info  # pyright: ignore[reportAttributeAccessIssue]
            with slot(context, time.sleep, poll_s=0.05):
                claimed = storage.get_concurrency_info(POOL).claimed_slots
                assert [(found.run_id, found.step_key) for found in claimed] == [(context.run.run_id, "notes")]

        done = dg.materialize([notes], instance=instance)
        lines = said(instance, done.run_id)
        assert storage.get_concurrency_info(POOL).claimed_slots == []
    assert time.monotonic() - began < 30
    wanted = f"waiting for a slot of {POOL}, held by lora_checkpoint of run {holder.run_id[:8]} (experiment paper)"
    assert lines.count(wanted + where) == 1


def test_the_pool_has_the_slots_that_dagster_yaml_or_the_ui_says_last(tmp_path: Path) -> None:
    def slots(default: int, *, in_the_ui: int | None = None) -> int:
        pools = {"concurrency": {"pools": {"default_limit": default}}}
        with dg.instance_for_test(overrides=pools, temp_dir=str(tmp_path)) as instance:
            storage = instance.event_log_storage
            if in_the_ui is not None:
                storage.set_concurrency_slots(POOL, in_the_ui)

            @dg.asset
            def notes(context: dg.AssetExecutionContext) -> None:
                with slot(context, time.sleep, poll_s=0.05):
                    pass

            assert dg.materialize([notes], instance=instance).success
            return storage.get_concurrency_info(POOL).slot_count

    assert [slots(1), slots(8), slots(2)] == [1, 8, 2]
    assert [slots(2, in_the_ui=5), slots(4)] == [5, 5]


def test_a_slot_of_a_process_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(POOL, 1)
        dead = instance.create_run_for_job(_empty_job)
        assert storage.claim_concurrency_slot(POOL, dead.run_id, "lora_checkpoint").is_claimed
        instance.add_run_tags(dead.run_id, {PROCESS_TAG: _this_process().replace(":", ":1")})
        entered: list[bool] = []

        @dg.asset
        def notes(context: dg.AssetExecutionContext) -> None:
            with slot(context, time.sleep, poll_s=0.05):
                entered.append(True)

        assert dg.materialize([notes], instance=instance).success
    assert entered == [True]


def test_a_run_that_is_stopped_while_it_waits_for_the_slot_misses_no_worker(
    tmp_path: Path, local: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stopped(*_: object) -> Iterator[None]:
        raise dg.DagsterExecutionInterruptedError
        yield

    monkeypatch.setattr("dagster_project.launch.slot", stopped)
    with dg.DagsterInstance.ephemeral() as instance:
        done, _ = materialize(build_job(tmp_path, "succeed", gpus=1), tmp_path / "run", local, instance)
        assert not done.success
        assert "DagsterExecutionInterruptedError" in failure_of(done)
        assert not [line for line in said(instance, done.run_id) if "[pipes]" in line]


def test_a_job_without_gpus_takes_no_slot(tmp_path: Path, local: Deployment) -> None:
    with dg.instance_for_test() as instance:
        instance.event_log_storage.set_concurrency_slots(POOL, 0)
        done, _ = materialize(build_job(tmp_path, "succeed"), tmp_path / "run", local, instance)
        assert done.success


@dg.job
def _empty_job() -> None:
    return None


def _this_process() -> str:
    import socket

    from resources.launcher.processes import identity

    return f"{socket.gethostname()}/{identity(os.getpid())}"


def start_step(
    tmp_path: Path, deployment: Deployment, verb: str, play: dict[str, JsonValue]
) -> "subprocess.Popen[bytes]":
    """A process of its own that materializes the asset, as Dagster's run worker does."""
    job = build_job(tmp_path, verb, play=play)
    given = {"job": job.model_dump(mode="json"), "deployment": deployment.model_dump(mode="json")}
    (tmp_path / "step.json").write_text(json.dumps({**given, "run_dir": str(tmp_path / "run")}))
    with (tmp_path / "step.log").open("ab") as log:
        command = [sys.executable, "-m", "tests.resources.launcher.kept", str(tmp_path / "step.json")]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def await_text(path: Path, text: str, patience_s: float = 60) -> None:
    await_true(lambda: path.exists() and text in path.read_text(), patience_s)


def await_true(condition: Callable[[], object], patience_s: float = 10) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killing_the_step_leaves_no_process_of_a_local_job(tmp_path: Path, local: Deployment) -> None:
    step = start_step(tmp_path, local, "hang_with_stubborn_family", {})
    await_text(tmp_path / "run" / "messages.jsonl", "hanging")
    assert family(tmp_path)
    step.kill()
    step.wait()
    await_true(lambda: not family(tmp_path), 10)


def test_a_run_that_follows_a_killed_one_at_once_ends_the_dying_job_and_computes_anew(
    tmp_path: Path, local: Deployment
) -> None:
    """The keeper gives a job whose parent is gone five seconds; nobody may take it for a job at work meanwhile."""
    step = start_step(tmp_path, local, "hang_once", {})
    await_text(tmp_path / "run" / "messages.jsonl", "hanging")
    step.kill()
    step.wait()
    assert family(tmp_path)
    result = build_attempt(build_job(tmp_path, "hang_once"), tmp_path, local).result({})
    assert result.metrics["number"] == 2


@pytest.mark.slow
def test_a_slurm_job_outlives_its_step_and_the_next_run_attaches_to_it(
    tmp_path: Path, slurm: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    deployment = Deployment(backend="slurm", gpus=8)
    play: dict[str, JsonValue] = {"number": 40, "seconds": 8.0}
    step = start_step(tmp_path, deployment, "succeed", play)
    run = RunDir(tmp_path / "run")
    await_text(run.messages, "line 3")
    step.kill()
    step.wait()
    handle = run.handle()
    with dg.DagsterInstance.ephemeral() as instance:
        done, results = materialize(build_job(tmp_path, "succeed", play=play), run.path, deployment, instance)
        assert done.success and results[0].metrics["number"] == 40
        lines = said(instance, done.run_id)
    assert f"attached to job {handle}, which was still there" in lines
    assert [line for line in lines if line.startswith("line ")] == [f"line {index}" for index in range(40)]
    assert run.handle() == handle


def test_terminating_a_run_ends_its_job_within_ten_seconds(tmp_path: Path, deployment: Deployment) -> None:
    """What Dagster's launcher does on Terminate: mark the run as canceling, then SIGTERM."""
    step = start_step(tmp_path, deployment, "hang_with_stubborn_family", {})
    await_text(tmp_path / "run" / "messages.jsonl", "hanging")
    (tmp_path / "canceling").touch()
    began = time.monotonic()
    step.send_signal(signal.SIGTERM)
    step.wait(15)
    assert time.monotonic() - began < 10
    assert not family(tmp_path)


@pytest.mark.slow
def test_a_restarted_daemon_leaves_the_slurm_job_to_the_retry(tmp_path: Path, slurm: object) -> None:
    deployment = Deployment(backend="slurm", gpus=8)
    step = start_step(tmp_path, deployment, "hang", {})
    run = RunDir(tmp_path / "run")
    await_text(run.messages, "hanging")
    step.send_signal(signal.SIGTERM)
    step.wait(15)
    launcher, handle = deployment.launcher(), run.handle()
    assert handle is not None and launcher.alive(handle)
    launcher.cancel(handle)


@pytest.mark.slow
def test_killing_the_process_above_the_step_does_not_touch_the_job(tmp_path: Path, deployment: Deployment) -> None:
    """The daemon or code server dies; the step that it started goes on and finishes."""
    job = build_job(tmp_path, "succeed", play={"number": 4, "seconds": 2.0})
    given = {"job": job.model_dump(mode="json"), "deployment": deployment.model_dump(mode="json")}
    (tmp_path / "step.json").write_text(json.dumps({**given, "run_dir": str(tmp_path / "run")}))
    code = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-m', 'tests.resources.launcher.kept', "
        "sys.argv[1]], start_new_session=True); time.sleep(120)"
    )
    with (tmp_path / "step.log").open("ab") as log:
        command = [sys.executable, "-c", code, str(tmp_path / "step.json")]
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    await_text(tmp_path / "run" / "messages.jsonl", "line 0")
    daemon.kill()
    daemon.wait()
    await_text(tmp_path / "step.log", "the run succeeded")
    assert RunDir(tmp_path / "run").result() is not None
