"""Files that are there whole or not at all, however the process that writes them ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what lies there takes the place of `path` when the block has succeeded."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    partial.replace(path)
