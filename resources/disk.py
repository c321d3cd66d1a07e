"""A full disk, a read-only folder, a lost right, told in one sentence by whatever library; and who shares a disk."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.errors import BadInput
from resources.home import find_home

DAMAGED_DATABASE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
"""SQLite's codes for a file that is no database, and for one that was cut or changed."""
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (where NCCL makes its segments)
_FULL = {errno.ENOSPC, errno.EDQUOT}
_TIGHT = 1 << 20
"""Bytes free below which an I/O error is put down to the lack of room."""
_LOCAL = {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
"""File systems of one machine; others, such as nfs4, lustre and gpfs, may be shared."""
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
# What SQLite, Rust (safetensors, tokenizers) and torch say where they raise no OSError.
_FULL_TEXTS = (os.strerror(errno.ENOSPC), "os error 28", "database or disk is full")
_REFUSED_TEXTS = (
    os.strerror(errno.EROFS),
    "os error 30",
    "attempt to write a readonly database",
    "unable to open database file",
)


def trouble(error: BaseException) -> str | None:
    """What to do when the disk caused an error, or anything that it came from; None when it did not."""
    for cause in causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        if is_full(cause) or _starved(cause):
            return (
                f"the disk of {_place(cause)} is full: free some space and run the same command again; "
                "what is finished is kept"
            )
        if number in REFUSED or any(text in str(cause) for text in _REFUSED_TEXTS):
            return (
                f"{_place(cause)} cannot be read or written: give this user the right to, or set LORASCOPE_HOME "
                "to another folder, and run the same command again; what is finished is kept"
            )
    return None


def is_full(cause: BaseException) -> bool:
    """Whether a disk, or somebody's share of it, had no room."""
    number = cause.errno if isinstance(cause, OSError) else None
    return number in _FULL or any(text in str(cause) for text in _FULL_TEXTS)


def one_machine(folder: Path) -> bool:
    """Whether no other machine can see the folder, as far as its file system's name tells."""
    from psutil import disk_partitions

    folder = folder.resolve()
    mounts = [one for one in disk_partitions(all=True) if folder.is_relative_to(one.mountpoint)]
    # the last of several on one place hides the others
    found = max(reversed(mounts), key=lambda one: len(Path(one.mountpoint).parts), default=None)
    return found is not None and found.fstype in _LOCAL


@contextmanager
def disk_told() -> Iterator[None]:
    """An error that the disk caused leaves the block as one sentence.

    Raises:
        BadInput: that sentence.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        said = trouble(error)
        if said is None:
            raise
        raise BadInput(said) from error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _starved(cause: BaseException) -> bool:
    """SQLite says `disk I/O error` when its shared memory finds no room, and also when the disk is broken."""
    root = find_home().root
    return "disk I/O error" in str(cause) and root.exists() and shutil.disk_usage(root).free < _TIGHT


def _place(cause: BaseException) -> str:
    """The file or the shared memory that the error names; the installation's folder when it names neither."""
    named = cause.filename if isinstance(cause, OSError) else None
    if isinstance(named, str | bytes):
        return os.fsdecode(named)
    return _SHARED_MEMORY if _SHARED_MEMORY in str(cause) else str(find_home().root)
