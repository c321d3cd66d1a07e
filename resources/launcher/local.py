"""Jobs as processes of this machine, each under a keeper, so that none outlives the process that wanted it."""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from resources.errors import BadInput
from resources.launcher import processes
from resources.launcher.command import script
from resources.launcher.devices import VISIBLE
from resources.launcher.leases import take
from resources.launcher.protocol import GRACE_S, MARKER, Ending, Order
from resources.launcher.rundir import RunDir

PREFIX = "local:"


@dataclass
class LocalLauncher:
    """The default back end. A handle is `pid:start:marker` of the job's keeper."""

    gpus: int
    lease_folder: Path
    survives: bool = False
    poll_s: float = 0.1
    slowest_poll_s: float = 0.1
    grace_s: float = GRACE_S
    _children: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def submit(self, order: Order) -> str:
        """Start the keeper, which starts the job.

        Raises:
            Busy: when too few GPUs are free.
            BadInput: when this process may not use as many.
        """
        processes.sweep(PREFIX)
        marker = processes.marker(PREFIX, order.run_dir)
        with take(self.lease_folder, self.gpus, order.gpus, order.name) as lease:
            extra = {MARKER: marker, VISIBLE: ",".join(lease.devices)}
            child = self._start(order, extra, lease.descriptors)
        handle = f"{processes.identity(child.pid)}:{marker}"
        self._children[handle] = child
        return handle

    def _start(self, order: Order, extra: dict[str, str], leased: tuple[int, ...]) -> "subprocess.Popen[bytes]":
        run = RunDir(order.run_dir)
        # The marker comes from the keeper's environment: by hand, the script is a process like any other.
        run.script.write_text(script(order.command, {**order.env, VISIBLE: extra[VISIBLE]}))
        keeper = (sys.executable, "-IS", str(processes.KEEPER), str(os.getpid()), str(self.grace_s))
        with run.stdout.open("ab") as out, run.stderr.open("ab") as err:
            return subprocess.Popen(  # noqa: S603
                [*keeper, str(run.rc), str(run.stop), "/bin/sh", str(run.script)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **extra},
                start_new_session=True,
                pass_fds=leased,
            )

    def shown(self, order: Order) -> tuple[str, ...]:
        """The worker's own command line."""
        return (shlex.join(order.command),)

    def find(self, run_dir: Path) -> str | None:
        """The keeper of this run directory's job, if there is one."""
        wanted = processes.marker(PREFIX, run_dir)
        found = (pid for pid, marker in processes.marked() if marker == wanted and processes.is_keeper(pid))
        return next((f"{processes.identity(pid)}:{wanted}" for pid in found), None)

    def status(self, handle: str) -> str:
        """`running` until the keeper is gone."""
        child = self._children.get(handle)
        if child is not None and child.poll() is not None:
            return ""
        return "running" if processes.exists(_keeper(handle)) else ""

    def alive(self, handle: str) -> bool:
        """Whether the keeper, and so perhaps the job, is there."""
        return bool(self.status(handle))

    def owns(self, handle: str, order: Order) -> bool:  # noqa: ARG002
        """No other process has its number and start."""
        return True

    def ending(self, handle: str) -> Ending:  # noqa: ARG002
        """The kernel remembers nothing."""
        return "unknown"

    def cancel(self, handle: str) -> None:
        """Tell the keeper to end the job, and do it ourselves if the keeper is gone or stuck."""
        keeper = _keeper(handle)
        if processes.exists(keeper):
            with suppress(ProcessLookupError):
                os.kill(int(keeper.partition(":")[0]), signal.SIGTERM)
        deadline = time.monotonic() + self.grace_s + 2
        while self.alive(handle) and time.monotonic() < deadline:
            time.sleep(0.02)
        processes.end(handle.removeprefix(f"{keeper}:"))
        self.release(handle)

    def release(self, handle: str) -> None:
        """Collect the keeper, which is about to exit."""
        child = self._children.pop(handle, None)
        if child is not None:
            child.wait()


def _keeper(handle: str) -> str:
    """The keeper's identity.

    Raises:
        BadInput: when another back end gave the handle.
    """
    keeper, found, _ = handle.rpartition(f":{PREFIX}")
    if not found:
        raise BadInput(
            f"job {handle} of this artifact went to another back end, where it may still run: wait for it there, or "
            "cancel it and delete its folder under runs/ in the home directory"
        )
    return keeper
