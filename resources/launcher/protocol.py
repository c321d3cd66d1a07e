"""What every back end can do, and what it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from resources.stage import SAVING_S

MARKER = "LORASCOPE_JOB"
"""Environment variable that every process of a job carries, so that none can hide from a scan of /proc."""

GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""


Ending = Literal["cancelled", "walltime", "preempted", "node", "memory", "blind", "unknown", "forgotten"]
"""Why a job is gone: somebody's hand, its time, a more urgent job, its node, its node's memory, a node that does not
see its folder, something else, or nobody can tell."""


class Busy(RuntimeError):
    """The node has no room for the job now, or nobody answers; the message says who is in the way."""


@dataclass(frozen=True)
class Order:
    """One job, as a back end sees it."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    """Variables added to the environment of the node."""
    run_dir: Path
    name: str
    """What the queue and the run page show."""
    gpus: int = 0
    cpus: int = 1
    minutes: int = 60
    saving_s: int = SAVING_S
    """Seconds before the end of the walltime at which the worker is told to save."""


class Launcher(Protocol):
    """One back end."""

    @property
    def survives(self) -> bool:
        """Jobs outlive the process that submitted them, so that a retry can attach to them again."""
        ...

    @property
    def poll_s(self) -> float:
        """Seconds between two questions whether a job is alive, at first and when it may be gone."""
        ...

    @property
    def slowest_poll_s(self) -> float:
        """The same once a job has gone on for minutes; its exit code, a file, is seen without asking."""
        ...

    def submit(self, order: Order) -> str:
        """Start or queue the job; its handle.

        Raises:
            Busy: when it has to wait for other jobs and the back end has no queue, or nobody knows whether it was
                taken; ask `find` before the next try.
        """
        ...

    def shown(self, order: Order) -> tuple[str, ...]:
        """The exact command lines, for review without running."""
        ...

    def find(self, run_dir: Path) -> str | None:
        """Handle of a job submitted earlier for this run directory whose handle was never written down.

        Raises:
            Busy: when the back end cannot tell just now.
        """
        ...

    def status(self, handle: str) -> str:
        """What the job is doing, for a person; empty once it is gone."""
        ...

    def alive(self, handle: str) -> bool:
        """Whether the job is queued or runs."""
        ...

    def owns(self, handle: str, order: Order) -> bool:
        """Whether a living job is the order's own: a queue that counts from 1 again gives our number to another.

        Raises:
            Busy: when the back end cannot tell just now.
        """
        ...

    def ending(self, handle: str) -> Ending:
        """Why a job is gone."""
        ...

    def cancel(self, handle: str) -> None:
        """End every process of the job, SIGTERM first; returns when none is left."""
        ...

    def release(self, handle: str) -> None:
        """The job has ended by itself: give back what this process still holds for it."""
        ...
