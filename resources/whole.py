"""Files that are there whole or not at all, however the process or the machine that writes them ends."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


def whole(path: Path) -> AbstractContextManager[Path]:
    """A name beside `path` to write to; what lies there takes the place of `path` when the block has succeeded."""
    return _replacing(path, f"{path.name}.partial")


def write_whole(path: Path, text: str) -> None:
    """Write a file that other processes read or write too, so that it outlives a power cut; a full disk leaves none."""
    with _replacing(path, f".{path.name}.{os.getpid()}") as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def _replacing(path: Path, name: str) -> Iterator[Path]:
    partial = path.with_name(name)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk: power cuts keep new names and lose what they name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Bring a folder and every file and folder below it to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
