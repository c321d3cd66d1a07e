"""An artifact is either whole or it does not exist, whatever happens to its files."""

import errno
import os
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest

from resources.errors import BadInput
from resources.keys import file_digest
from resources.manifest import FILE_NAME, Manifest, read_manifest, write_manifest
from resources.store import Store
from tests.other_users import acting_as

NOBODY = [].append
"""To whom a store speaks that nobody listens to."""


def build_manifest(asset: str = "sae", key: str = "k1") -> Manifest:
    return Manifest(
        asset=asset,
        key=key,
        code_version=1,
        experiment="mini",
        sections={"sae": {"k": 16}},
        section_versions={"sae": "v"},
        inputs={},
        files={},
        metrics={"fvu": 0.25},
        columns=[],
        seconds=1.5,
        device="cpu",
        packages={},
        created="2026-01-01T00:00:00+00:00",
    )


def build_artifact(store: Store, asset: str = "sae", key: str = "k1") -> Path:
    workspace = store.workspace(asset, key)
    (workspace.out / "data").mkdir()
    (workspace.out / "data" / "a.bin").write_bytes(b"0123456789")
    (workspace.out / "b.txt").write_text("hello")
    (workspace.scratch / "checkpoint").write_text("step 3")
    store.finish(build_manifest(asset, key))
    return store.folder(asset, key)


def test_a_finished_artifact_has_its_files_hashed_and_its_workspace_gone(tmp_path: Path) -> None:
    folder = build_artifact(Store(tmp_path))
    files = read_manifest(folder).files
    assert {name: entry.size for name, entry in files.items()} == {"b.txt": 5, "data/a.bin": 10}
    assert files["b.txt"].sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert list((tmp_path / ".partial").rglob("*")) == [tmp_path / ".partial" / "sae"]


def test_every_byte_of_an_artifact_is_on_the_disk_and_read_only_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path).as_posix())
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    folder = build_artifact(Store(tmp_path))
    out, named = ".partial/sae/k1/out", done.index("renamed")
    inside = {f"{out}/{name}" for name in ("b.txt", "data", "data/a.bin", FILE_NAME)}
    assert set(done[:named]) == inside | {out}
    assert done[named + 1 :] == ["sae"]
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o444}


def test_a_hit_hashes_files_up_to_a_size_and_a_job_hashes_all_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.store.SMALL", 9)
    store = Store(tmp_path)
    flip(build_artifact(store) / "data" / "a.bin")  # ten bytes
    assert store.find("sae", "k1") is not None
    with pytest.raises(BadInput, match=r"data/a\.bin: content differs"):
        store.check_inputs({"sae": "k1"}, NOBODY)
    assert not store.folder("sae", "k1").exists()
    monkeypatch.setattr("resources.store.SMALL", 10)
    flip(build_artifact(store) / "data" / "a.bin")
    assert store.find("sae", "k1") is None


def test_what_a_run_has_hashed_for_one_job_it_reads_again_for_the_next_only_where_it_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.store.SMALL", 9)
    store, read = Store(tmp_path), list[str]()
    folder = build_artifact(store)
    monkeypatch.setattr("resources.store.file_digest", lambda path: (read.append(path.name), file_digest(path))[1])
    for _ in range(2):
        store.check_inputs({"sae": "k1"}, NOBODY)
    assert sorted(read) == ["a.bin", "b.txt", "b.txt"], "ten bytes, and five"
    flip(folder / "data" / "a.bin")
    with pytest.raises(BadInput, match=r"data/a\.bin: content differs"):
        store.check_inputs({"sae": "k1"}, NOBODY)


def test_a_run_says_that_it_hashes_inputs_that_take_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, said = Store(tmp_path), list[str]()
    build_artifact(store)
    store.check_inputs({"sae": "k1"}, said.append)
    assert said == []
    monkeypatch.setattr("resources.store.TOLD_FROM", 15)
    store.check_inputs({"sae": "k1"}, said.append)
    assert said == ["checks the hashes of its inputs, 0 GB"]


def test_a_hit_knows_a_cut_file_that_is_too_large_to_be_hashed_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.store.SMALL", 5)
    store = Store(tmp_path)
    path = build_artifact(store) / "data" / "a.bin"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])  # ten bytes before
    assert [str(damage) for damage in store.damage("sae", "k1")] == ["sae/k1/data/a.bin: 9 bytes instead of 10"]
    assert store.find("sae", "k1") is None


def test_files_between_the_artifacts_are_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build_artifact(store)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "sae" / "notes.txt").touch()
    assert list(store.artifacts()) == [("sae", "k1")]


def test_work_that_another_user_began_is_finished_although_its_files_stay_theirs(public: Path) -> None:
    """Only the owner of a file may make it read-only; the artifact is whole all the same."""
    store = Store(public)
    (store.workspace("sae", "k1").out / "shard").write_text("their hours of work")
    for folder in (path for path in public.rglob("*") if path.is_dir()):
        folder.chmod(0o777)
    with acting_as(1002):
        store.finish(build_manifest())
    assert list(store.damage("sae", "k1")) == []


def test_what_another_run_finishes_while_it_is_looked_for_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finished_meanwhile(store: Store, asset: str, key: str) -> None:
        build_artifact(store, asset, key)

    monkeypatch.setattr(Store, "whole", finished_meanwhile)
    assert Store(tmp_path).find("sae", "k1") is None
    assert not (tmp_path / ".damaged").exists()


def test_a_shelf_on_another_disk_is_refused_before_the_work(tmp_path: Path) -> None:
    """A finished folder is renamed into place, which no two disks allow."""
    other = Path("/dev/shm")  # noqa: S108 (a disk that every Linux has)
    if other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other disk here")
    (tmp_path / "sae").symlink_to(other)
    with pytest.raises(BadInput, match=rf"^{tmp_path}/sae lies on another disk than {tmp_path}: link the whole store"):
        Store(tmp_path).workspace("sae", "k1")


def test_half_made_work_is_no_artifact_and_keeps_its_scratch(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.workspace("sae", "k1").scratch.joinpath("checkpoint").write_text("step 3")
    assert store.find("sae", "k1") is None
    assert list(store.artifacts()) == []
    assert store.workspace("sae", "k1").scratch.joinpath("checkpoint").read_text() == "step 3"


def test_a_kill_between_manifest_and_rename_leaves_nothing_that_the_next_finish_trips_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    out = store.workspace("sae", "k1").out
    (out / "b.txt").write_text("hello")
    write_manifest(out, build_manifest())
    (out / FILE_NAME).chmod(0o444)
    store.finish(build_manifest())
    assert list(store.damage("sae", "k1")) == []
    assert set(read_manifest(store.folder("sae", "k1")).files) == {"b.txt"}


def test_what_was_set_aside_twice_is_kept_twice_even_when_the_clock_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime(2028, 2, 29, 1, 30, tzinfo=tz)

    monkeypatch.setattr("resources.store.datetime", Stopped)
    store = Store(tmp_path)
    for _ in range(2):
        (build_artifact(store) / "b.txt").unlink()
        assert store.find("sae", "k1") is None
    assert len(list((tmp_path / ".damaged").glob("sae-k1-20280229T013000*"))) == 2


def test_damage_that_two_runs_find_at_once_is_set_aside_by_one_of_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build_artifact(store)
    store.set_aside("sae", "k1")
    store.set_aside("sae", "k1")
    assert len(list((tmp_path / ".damaged").iterdir())) == 1


def _truncate(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _empty(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [_truncate, flip, _empty, Path.unlink], ids=["cut", "flipped", "empty", "gone"])
@pytest.mark.parametrize("name", [FILE_NAME, "b.txt", "data/a.bin"])
def test_a_damaged_artifact_is_named_not_found_and_set_aside(
    tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    store = Store(tmp_path)
    harm(build_artifact(store) / name)
    damage = list(store.damage("sae", "k1"))
    assert [item.file for item in damage] in ([name], [FILE_NAME])
    assert store.find("sae", "k1") is None
    assert not store.folder("sae", "k1").exists()
    assert len(list((tmp_path / ".damaged").iterdir())) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("opened", [FILE_NAME, "b.txt"])
def test_an_artifact_that_cannot_be_looked_at_now_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: str, number: int
) -> None:
    store = Store(tmp_path)
    build_artifact(store)
    fail_to_open(monkeypatch, opened, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        store.find("sae", "k1")
    with pytest.raises(OSError, match=os.strerror(number)):
        store.check_inputs({"sae": "k1"}, NOBODY)
    monkeypatch.undo()
    assert list(store.damage("sae", "k1")) == []


@pytest.mark.parametrize("opened", [FILE_NAME, "b.txt"])
def test_a_file_that_the_disk_cannot_read_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: str
) -> None:
    store = Store(tmp_path)
    build_artifact(store)
    fail_to_open(monkeypatch, opened, errno.EIO)
    assert [str(item) for item in store.damage("sae", "k1")] == [f"sae/k1/{opened}: unreadable (Input/output error)"]
    assert store.find("sae", "k1") is None
    assert not store.folder("sae", "k1").exists()


def test_a_file_where_a_folder_was_or_the_other_way_round_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = build_artifact(store)
    (folder / "data" / "a.bin").unlink()
    (folder / "data").rmdir()
    (folder / "data").write_bytes(b"")
    (folder / FILE_NAME).rename(tmp_path / "manifest")
    (folder / FILE_NAME).mkdir()
    assert [str(item) for item in store.damage("sae", "k1")] == ["sae/k1/manifest.json: unreadable (Is a directory)"]
    (folder / FILE_NAME).rmdir()
    (tmp_path / "manifest").rename(folder / FILE_NAME)
    said = ["sae/k1/data/a.bin: unreadable (Not a directory)", "sae/k1/data: is not in the manifest"]
    assert [str(item) for item in store.damage("sae", "k1")] == said
    assert store.find("sae", "k1") is None


def test_a_file_that_the_manifest_does_not_know_is_damage_unless_it_is_hidden(tmp_path: Path) -> None:
    """Readers look for shards by name; no reader looks at what file managers and network disks leave behind."""
    store = Store(tmp_path)
    folder = build_artifact(store)
    for name in (".DS_Store", "data/.nfs0001", ".cache/a"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert store.find("sae", "k1") is not None
    (folder / "data" / "b.bin").touch()
    assert [str(item) for item in store.damage("sae", "k1")] == ["sae/k1/data/b.bin: is not in the manifest"]
    assert store.find("sae", "k1") is None


def fail_to_open(monkeypatch: pytest.MonkeyPatch, name: str, number: int, within: str = "") -> None:
    plain = Path.open

    def opened(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == name and within in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return plain(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", opened)


def test_a_job_never_reads_a_damaged_input(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build_artifact(store, key="k0")
    flip(build_artifact(store) / "b.txt")
    store.check_inputs({"sae": "k0"}, NOBODY)
    with pytest.raises(BadInput, match=r"sae/k1/b.txt: content differs from its SHA-256; it was set aside"):
        store.check_inputs({"sae": "k1"}, NOBODY)
    assert list(store.artifacts()) == [("sae", "k0")]


def test_an_artifact_copied_to_another_key_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build_artifact(store).rename(tmp_path / "sae" / "k2")
    assert [str(item) for item in store.damage("sae", "k2")] == ["sae/k2/manifest.json: is the manifest of sae/k1"]
