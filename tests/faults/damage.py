"""What may happen to a file, applied to a new inode: an artifact of a test may share its files with others."""

import random
from collections.abc import Callable
from pathlib import Path

Harm = Callable[[Path, random.Random], None]


def truncate(path: Path, random_: random.Random) -> None:
    """Lose the end, at any place."""
    data = path.read_bytes()
    _replace(path, data[: random_.randrange(len(data))])


def empty(path: Path, random_: random.Random) -> None:
    """Keep the name only."""
    _replace(path, b"")


def flip(path: Path, random_: random.Random) -> None:
    """Turn over one bit, at any place."""
    data = bytearray(path.read_bytes())
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    _replace(path, bytes(data))


def overwrite(path: Path, random_: random.Random) -> None:
    """Hold something else altogether, of the same size."""
    _replace(path, random_.randbytes(path.stat().st_size))


def remove(path: Path, random_: random.Random) -> None:
    """Be gone."""
    path.unlink()


HARMS: tuple[Harm, ...] = (truncate, empty, flip, remove)


def _replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)
