"""What `explained` turns into a sentence about the source, and what it leaves to others."""

import errno
from pathlib import Path

import pytest
import torch

from resources import hub
from resources.errors import BadInput
from resources.hub import explained, fetched


def test_a_device_without_room_is_not_taken_for_a_missing_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    for source in (str(tmp_path), "someone/model"):
        with pytest.raises(torch.OutOfMemoryError, match="270 MiB"), explained(source):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 270 MiB")


def test_any_other_error_of_the_runtime_names_the_source(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder but cannot be loaded: torn"), explained(str(tmp_path)):
        raise RuntimeError("torn")


def test_a_local_folder_is_fetched_as_it_is_whatever_the_revision(tmp_path: Path) -> None:
    assert fetched(str(tmp_path), None) == fetched(str(tmp_path), "a" * 40) == tmp_path


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the disk of the hub's cache is full: free some space, or set",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk of the hub's cache is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk of the hub's cache is full"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/c/x"),
            "/c/x, in the hub's cache, cannot be written: give",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/c"), "/c, in the hub's cache, cannot be written"),
    ],
)
def test_a_full_or_closed_cache_is_not_taken_for_a_hub_that_breaks_off(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    told = pytest.raises(BadInput, match=rf"^someone/model cannot be downloaded: {said}.* HF_HOME")
    with told, explained("someone/model"):
        raise error


def test_a_network_that_the_kernel_closes_is_not_taken_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    told = pytest.raises(BadInput, match=r"^someone/model is neither a local folder .* the hub cannot be reached")
    with told, explained("someone/model"):
        raise PermissionError(errno.EPERM, "Operation not permitted")
