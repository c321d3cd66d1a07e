"""A file that others read is the old one or the new one, never a part of either."""

import errno
import os
from pathlib import Path

import pytest

from resources.whole import sync_all, whole, write_whole


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole(path) as partial:
        partial.write_text("half of the n")
        raise ZeroDivisionError
    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == {"shard": "old"}
    with whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == {"shard": "new"}


def test_text_is_on_the_disk_before_it_takes_the_place_of_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    synced: list[tuple[str, str]] = []

    def sync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").read_text(), path.read_text()))

    monkeypatch.setattr(os, "fsync", sync)
    write_whole(path, "π new")
    assert synced == [("π new", "old")]
    assert {found.name: found.read_text("utf-8") for found in tmp_path.iterdir()} == {"result.json": "π new"}


def test_what_a_block_wrote_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems keep a new name for up to half a minute before the bytes that it names."""
    path = tmp_path / "shard"
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append((Path(f"/proc/self/fd/{file}").read_text(), path.exists()))
    )
    with whole(path) as partial:
        partial.write_text("whole")
    assert synced == [("whole", False)]


def test_a_folder_goes_to_the_disk_file_by_file_and_none_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact of thousands of shards has more files than a process may hold open."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "shard").write_text("rows")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(str(Path(f"/proc/self/fd/{file}").readlink())))
    before = len(list(Path("/proc/self/fd").iterdir()))
    sync_all(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert sorted(synced) == [str(tmp_path / name) for name in ("", "a", "a/b", "a/b/shard")]


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "result.json"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == {"result.json": "old"}
