"""How a run learns that nobody wants it any more: by a signal where that can do no harm, and by asking.

A run of `lorascope run` is sent no signal by the UI. One that falls into a write of Dagster's log can be lost: Python
drops what its handler raises in a callback of the garbage collector, SQLAlchemy turns it into another error, which
Dagster drops (`python -m tests.faults.interrupts` counts both), and some leave the log's lock held for good.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import dagster as dg
from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt

TERMINATED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
ASK_S = 1.0
"""Seconds between two questions."""


@dataclass
class Wanted:
    """One run, for as long as it waits for something."""

    instance: dg.DagsterInstance
    run_id: str
    _asked: float = field(default_factory=time.monotonic)
    _terminated: bool = False

    def pause(self, seconds: float) -> None:
        """Sleep between two looks at what the run waits for.

        Raises:
            dagster.DagsterExecutionInterruptedError: when the run was terminated, and two questions have said so: the
                signal comes between them, and one that came later would break off what is done about the first.
        """
        time.sleep(seconds)
        if time.monotonic() - self._asked < ASK_S:
            return
        # What the database cannot say now, it can say a second later; no job must end for that.
        with suppress(Exception), unbroken():
            before, self._terminated = self._terminated, is_terminated(self.instance, self.run_id)
            if before and self._terminated:
                raise dg.DagsterExecutionInterruptedError("the run was terminated")
        self._asked = time.monotonic()


def is_terminated(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Somebody has pressed Terminate."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in TERMINATED


@contextmanager
def unbroken() -> Iterator[None]:
    """A block that reads or writes Dagster's database: an interrupt waits for its end.

    Raises:
        dagster.DagsterExecutionInterruptedError: at the end, when there was one.
    """
    with capture_interrupts():
        yield
        interrupted = pop_captured_interrupt()
    if interrupted:
        raise dg.DagsterExecutionInterruptedError
