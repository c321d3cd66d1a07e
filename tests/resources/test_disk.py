"""A disk's troubles are recognised through every library that writes to one."""

import errno
import os
import sqlite3

import pytest

from resources.disk import disk_told, trouble
from resources.errors import BadInput

NCCL = """NCCL error, unhandled system error, NCCL version 2.27.5
Last error:
Error while creating shared memory segment /dev/shm/nccl-dtgBHJ (size 33030528), error: No space left on device (28)"""
"""In a container, whose shared memory Docker makes of 64 MB."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"), "the disk of /data/x is full: free some space"),
        (OSError(errno.EDQUOT, "quota", "/data/x"), "the disk of /data/x is full"),
        (sqlite3.OperationalError("database or disk is full"), "the disk of /home/me is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk of /home/me is full"),
        (RuntimeError(NCCL), "the disk of /dev/shm is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x cannot be read or written: give"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), b"/data/x"), "/data/x cannot be read or written"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "/home/me cannot be read or written"),
    ],
)
def test_it_is_one_sentence_with_place_and_remedy(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASCOPE_HOME", "/home/me")
    with pytest.raises(BadInput) as caught, disk_told():
        raise RuntimeError("wrapped by some library") from error
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert "run the same command again; what is finished is kept" in str(caught.value)


def test_other_errors_keep_their_traceback() -> None:
    assert trouble(ValueError("shapes differ")) is None
    assert trouble(FileNotFoundError(errno.ENOENT, "No such file", "/data/x")) is None
    with pytest.raises(ZeroDivisionError), disk_told():
        raise ZeroDivisionError


def test_a_sentence_that_is_already_one_stays_as_it_is() -> None:
    with pytest.raises(BadInput, match=r"^free space$"), disk_told():
        raise BadInput("free space") from OSError(errno.ENOSPC, "full")
