"""What is taken from where it was published: linked from the hub's cache where that works, else copied."""

import errno
import os
from pathlib import Path

import pytest

from assets.adapter.config import FullFinetuneConfig
from tests.assets.adapter.conftest import World

WEIGHTS = "model.safetensors"


@pytest.fixture
def published(world: World, tmp_path: Path) -> Path:
    """A finetune as the hub's cache holds one: names that point to blobs."""
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(Path(world.model.name).iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blobs / str(number))
    return snapshot


def test_a_blob_of_the_hubs_cache_is_linked(world: World, published: Path) -> None:
    out, _ = world.full("linked", FullFinetuneConfig(source=str(published)))
    assert (out / WEIGHTS).samefile(published / WEIGHTS)
    assert not (out / WEIGHTS).is_symlink()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_a_blob_that_cannot_be_linked_is_copied(
    world: World, published: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.link", refuse)
    out, _ = world.full(f"copied-{number}", FullFinetuneConfig(source=str(published)))
    assert (out / WEIGHTS).read_bytes() == (published / WEIGHTS).read_bytes()
    assert not (out / WEIGHTS).samefile(published / WEIGHTS)
