"""Whether a run is still wanted: asked of the instance, since the signal that says otherwise may never come.

Python drops what a signal's handler raises in a callback of the garbage collector, of which SQLAlchemy has one: of
3,000 signals to a step that did nothing but log, 5 were lost. A run of `lorascope run` is sent none by the UI at all.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field

import dagster as dg

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
        with suppress(Exception):
            before, self._terminated = self._terminated, is_terminated(self.instance, self.run_id)
            if before and self._terminated:
                raise dg.DagsterExecutionInterruptedError("the run was terminated")
        self._asked = time.monotonic()


def is_terminated(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Somebody has pressed Terminate."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in TERMINATED
