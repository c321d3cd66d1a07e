"""`verify` names what is damaged and nothing else, and goes on where one artifact cannot be looked at."""

import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_project.upkeep import verify_store
from resources.errors import BadInput
from resources.keys import file_digest
from resources.lock import try_hold
from resources.store import Damage, Hash, Store
from tests.other_users import acting_as
from tests.resources.test_store import build_artifact, fail_to_open, flip


def test_verify_looks_at_the_others_when_one_artifact_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    build_artifact(store)
    build_artifact(store, key="k2")
    flip(store.folder("sae", "k2") / "b.txt")
    fail_to_open(monkeypatch, "b.txt", errno.EACCES, "/k1/")
    said: list[str] = []
    with pytest.raises(BadInput, match=r"^1 of 2 artifacts could not be read \(.*/k1/b\.txt'\): see to that first$"):
        verify_store(store, said.append)
    assert said[0].startswith("sae/k1: not checked, [Errno 13] Permission denied")
    assert said[1].startswith("sae/k2/b.txt: content differs")
    assert said[2] == "1 artifacts checked, 1 damaged files"
    assert store.folder("sae", "k1").exists()


def test_what_gc_removes_or_a_run_makes_anew_while_verify_is_at_work_is_no_damage(tmp_path: Path) -> None:
    for key in ("k1", "k2", "k3"):
        build_artifact(Store(tmp_path), key=key)

    class Slow(Store):
        def damage(self, asset: str, key: str, hash_of: Hash = file_digest) -> Iterator[Damage]:
            shutil.rmtree(self.folder("sae", "k2"), ignore_errors=True)
            (self.folder("sae", "k3") / "b.txt").unlink(missing_ok=True)
            yield from super().damage(asset, key, hash_of)

    said: list[str] = []
    with try_hold(tmp_path / ".locks" / "sae-k3") or pytest.fail():
        assert verify_store(Slow(tmp_path), said.append) == []
    assert said == ["3 artifacts checked, 0 damaged files"] and Store(tmp_path).folder("sae", "k3").exists()
    assert [item.key for item in verify_store(Store(tmp_path), said.append)] == ["k3"]


def test_verify_names_all_damage_of_a_store_in_which_it_can_move_nothing(public: Path) -> None:
    """Another user's, or one mounted to be read only."""
    store = Store(public / "store")
    for key in ("k1", "k2"):
        build_artifact(store, key=key)
        flip(store.folder("sae", key) / "b.txt")
    said: list[str] = []
    with acting_as(1002):
        assert [item.key for item in verify_store(store, said.append)] == ["k1", "k2"]
    reason = rf"content differs .* \(not set aside: \[Errno 13\] Permission denied: '{store.root}"
    assert all(re.match(rf"sae/{key}/b.txt: {reason}", line) for key, line in zip(("k1", "k2"), said[:2], strict=True))
    assert said[2] == "2 artifacts checked, 2 damaged files"
