"""One computation per key, across processes: a kernel lock that dies with its holder and says who that is."""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO


@contextmanager
def held(
    path: Path,
    holder: str,
    waiting: Callable[[str], None],
    poll_s: float = 0.2,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock file while the block runs; `waiting` is told once for each holder that is in the way.

    `pause` is called with the seconds between two looks; what it raises ends the wait.
    """
    file = _acquire(path, waiting, poll_s, pause)
    try:
        sign(file, holder)
        yield
    finally:
        file.close()


def sign(file: IO[str], holder: str) -> None:
    """Say in a locked file who holds it."""
    file.seek(0)
    file.truncate()
    file.write(f"{holder} (process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%F %T} UTC)")
    file.flush()


def try_hold(path: Path) -> IO[str] | None:
    """The locked file, to be closed by the caller, or None when somebody holds it."""
    return try_lock(path, _opened)


def _opened(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+")


def try_lock(path: Path, opened: Callable[[Path], IO[str]]) -> IO[str] | None:
    """As `try_hold`; `opened` opens the file, and makes it where there is none."""
    file = opened(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    # gc may have removed the file between open and lock: then this lock is on a name nobody else will find.
    if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
        file.close()
        return try_lock(path, opened)
    return file


def _acquire(path: Path, waiting: Callable[[str], None], poll_s: float, pause: Callable[[float], None]) -> IO[str]:
    told = ""
    while (file := try_hold(path)) is None:
        holder = holder_of(path)
        if holder != told:
            waiting(holder)
            told = holder
        pause(poll_s)
    return file


def holder_of(path: Path) -> str:
    """What the holder wrote; it may not have written yet, or be gone already."""
    try:
        return path.read_text() or "another run"
    except FileNotFoundError:
        return "another run"
