"""Processes by what the kernel says of them: identity that survives reuse of numbers, and the job's marker."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from resources.keys import digest
from resources.launcher.protocol import MARKER

PROC = Path("/proc")
KEEPER = Path(__file__).with_name("keeper.py")
PATIENCE_S = 5.0
"""Seconds in which what is left of a job is killed again and again."""


def started(pid: int) -> str | None:
    """When the process began, in clock ticks since boot; None when it has ended, is a zombie, or is hidden from us."""
    fields = _fields(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


def _fields(pid: int) -> list[str] | None:
    """What the kernel says of a process, from its state on (man 5 proc_pid_stat)."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def identity(pid: int) -> str:
    """`pid:start`, which names this process and no later one with the same number."""
    return f"{pid}:{started(pid)}"


def exists(name: str) -> bool:
    """Whether the process with this identity lives."""
    pid, _, start = name.partition(":")
    return _is_hidden(int(pid)) if _fields(int(pid)) is None else started(int(pid)) == start


def _is_hidden(pid: int) -> bool:
    """Another user's process, where /proc shows each user only their own (hidepid): there, though nobody knows since
    when."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False  # it began after we looked


def marker(prefix: str, run_dir: Path) -> str:
    """What the processes of a run directory's job carry: the back end's prefix and a hash of the folder's name."""
    return prefix + digest("run_dir", str(run_dir.absolute()))


def marked() -> Iterator[tuple[int, str]]:
    """Number and marker of every living process of any job that this user may look at."""
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            found = _marker(folder)
            if found and started(int(folder.name)) is not None:
                yield int(folder.name), found


def _marker(folder: Path) -> str:
    try:
        environ = (folder / "environ").read_bytes()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return ""
    wanted = f"{MARKER}=".encode()
    return next((item[len(wanted) :].decode() for item in environ.split(b"\0") if item.startswith(wanted)), "")


def is_keeper(pid: int) -> bool:
    """Whether the process is the keeper of a job."""
    # By the end of its path: another checkout of the project on this machine keeps its jobs by the same rules.
    tail = os.fsencode("/".join(KEEPER.parts[-3:]))
    try:
        return any(word.endswith(tail) for word in (PROC / str(pid) / "cmdline").read_bytes().split(b"\0"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def sweep(prefix: str) -> list[int]:
    """Kill what is left of jobs whose keeper is gone; the processes that were killed.

    Only markers that begin with `prefix` (one back end's jobs) are looked at.
    """
    found = [(pid, job) for pid, job in marked() if job.startswith(prefix)]
    kept = {job for pid, job in found if is_keeper(pid)}
    orphans = [pid for pid, job in found if job not in kept]
    for pid in orphans:
        kill(pid)
    return orphans


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end(job: str) -> None:
    """Kill every process of one job, again and again until none is left or patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        left = [pid for pid, found in marked() if found == job]
        if not left:
            return
        for pid in left:
            kill(pid)
        time.sleep(0.02)
