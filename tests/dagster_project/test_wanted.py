"""A run that was terminated ends its waits, also when no signal has said so, and no signal breaks a line of its log."""

import gc
import json
import os
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.launch import MessageReader
from dagster_project.wanted import ASK_S, Wanted, unbroken
from resources.launcher.rundir import RunDir
from tests.faults.interrupts import lost

PATIENCE_S = 60


def ended(instance: dg.DagsterInstance, terminate: Callable[[dg.DagsterRun], None]) -> tuple[float, str]:
    """Seconds that a run waited after it was terminated in the middle of its wait, and what it became."""
    seconds: list[float] = []

    @dg.asset
    def notes(context: dg.AssetExecutionContext) -> None:
        wanted = Wanted(context.instance, context.run.run_id)
        for _ in range(int(2 * ASK_S / 0.05)):
            wanted.pause(0.05)
        terminate(context.run)
        began = time.monotonic()
        try:
            while time.monotonic() < began + PATIENCE_S:
                wanted.pause(0.05)
        finally:
            seconds.append(time.monotonic() - began)

    done = dg.materialize([notes], instance=instance, raise_on_error=False)
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    return seconds[0], run.status.value


def test_a_run_that_was_terminated_waits_no_longer_than_two_questions() -> None:
    with dg.instance_for_test() as instance:
        waited, status = ended(instance, instance.report_run_canceling)
    assert ASK_S <= waited < PATIENCE_S and status == "CANCELED"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_a_callback_of_the_garbage_collector_swallows_is_made_up_for() -> None:
    class Collected:
        """Something that a weak reference can name."""

    with dg.instance_for_test() as instance:

        def terminate(run: dg.DagsterRun) -> None:
            instance.report_run_canceling(run)
            collected = Collected()
            reference = weakref.ref(collected, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del collected
            gc.collect()
            assert reference() is None

        waited, status = ended(instance, terminate)
    assert ASK_S <= waited < PATIENCE_S and status == "CANCELED"


def test_a_database_that_does_not_answer_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unanswered(_: dg.DagsterInstance, run_id: str) -> dg.DagsterRun | None:
        asked.append(run_id)
        raise OSError("database is locked")

    with dg.instance_for_test() as instance:
        wanted = Wanted(instance, "a-run")
        monkeypatch.setattr(dg.DagsterInstance, "get_run_by_id", unanswered)
        while len(asked) < 3:
            wanted.pause(0.05)
    assert asked == ["a-run"] * 3


def test_a_line_of_the_log_that_a_signal_falls_into_is_written_and_the_run_ends_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    real = dg.DagsterInstance.handle_new_event

    def interrupted(self: dg.DagsterInstance, event: dg.EventLogEntry, **said: Any) -> None:
        if event.user_message == "the first":
            os.kill(os.getpid(), signal.SIGINT)
        real(self, event, **said)
        written.append(event.user_message)

    @dg.asset
    def notes(context: dg.AssetExecutionContext) -> None:
        say = unbroken()(context.log.info)
        say("the first")
        say("the second")

    monkeypatch.setattr(dg.DagsterInstance, "handle_new_event", interrupted)
    with dg.instance_for_test() as instance:
        assert not dg.materialize([notes], instance=instance, raise_on_error=False).success
    assert "the first" in written and "the second" not in written


def test_a_signal_ends_the_reading_of_what_a_job_has_said_at_the_end_of_a_line(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    lines = [{"method": "log", "params": {"level": "INFO", "message": text}} for text in ("the first", "the second")]
    run.messages.write_text("".join(json.dumps({"__dagster_pipes_version": "0.1", **line}) + "\n" for line in lines))
    heard: list[str] = []

    class Interrupted(dg.PipesMessageHandler):
        def handle_message(self, message: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            heard.append(message["params"]["message"])

    @dg.asset
    def notes(context: dg.AssetExecutionContext) -> None:
        reader = MessageReader(run, context)
        reader._handler = Interrupted(context.op_execution_context, reader)
        reader.hear()

    with dg.instance_for_test() as instance:
        assert not dg.materialize([notes], instance=instance, raise_on_error=False).success
    assert heard == ["the first"]


def test_no_signal_to_a_step_that_does_nothing_but_log_is_lost_between_its_lines() -> None:
    assert lost(100, 1, unbroken()) == 0


def test_what_a_block_raises_itself_is_not_hidden_by_the_signal_that_falls_into_it() -> None:
    with pytest.raises(ValueError, match="its own"), unbroken():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("its own")
