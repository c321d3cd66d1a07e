"""GPU indices of one machine, leased by locked files: a lock ends with the last process that holds the file open."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from resources.launcher.protocol import Busy
from resources.lock import try_hold


@dataclass(frozen=True)
class Lease:
    """Some GPUs for one job. Leaving the block closes our side; the job's keeper holds on."""

    indices: tuple[int, ...]
    files: tuple[IO[str], ...]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """To be inherited by the keeper."""
        return tuple(file.fileno() for file in self.files)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self.files:
            file.close()


def take(folder: Path, total: int, wanted: int, name: str) -> Lease:
    """Lock `wanted` of `total` GPUs, or none at all.

    Raises:
        Busy: when too few are free; says who holds the others.
    """
    held: list[tuple[int, IO[str]]] = []
    for index in range(total):
        if len(held) == wanted:
            break
        file = try_hold(folder / f"gpu-{index}")
        if file is not None:
            held.append((index, file))
    if len(held) < wanted:
        for _, file in held:
            file.close()
        raise Busy(f"{wanted} GPUs wanted, {len(held)} of {total} free; held by {_holders(folder, total, held)}")
    for _, file in held:
        _sign(file, name)
    return Lease(tuple(index for index, _ in held), tuple(file for _, file in held))


def _sign(file: IO[str], name: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(name)
    file.flush()
    os.set_inheritable(file.fileno(), True)


def _holders(folder: Path, total: int, held: list[tuple[int, IO[str]]]) -> str:
    free = {index for index, _ in held}
    names = [(folder / f"gpu-{index}").read_text() for index in range(total) if index not in free]
    return ", ".join(sorted(set(names)))
