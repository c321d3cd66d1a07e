"""Finished shards in the scratch folder: written behind the forward pass, and taken by a later attempt."""

import errno
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from assets.activations.config import ActivationsConfig, NeuronsConfig
from resources.errors import BadInput
from resources.links import link_or_copy
from resources.parts import noted
from resources.shards import SHARD, Shards, StateBatch, write_shard

_WRITERS = 2
"""Threads, each with one shard: bounds memory, and only writers slower than the model are waited for."""


@dataclass
class Shelf:
    """The shards of one capture under `folder`; several processes may each add their own."""

    folder: Path
    columns: tuple[str, ...]
    fingerprint: str
    layout: ActivationsConfig | NeuronsConfig
    waited_s: float = 0.0
    """Seconds that the forward pass waited for the writer."""
    _queue: list[Future[None]] = field(default_factory=list)

    def path(self, index: int) -> Path:
        """Where shard `index` lies."""
        return self.folder / SHARD.format(index)

    def fingerprint_of(self, index: int) -> str | None:
        """The fingerprint of a shard that an earlier attempt finished; damaged ones are gone (`resources.parts`)."""
        path = self.path(index)
        return Shards.of((path,)).fingerprint if path.exists() else None

    @contextmanager
    def writing(self) -> Iterator[Callable[[int, Callable[[], StateBatch]], None]]:
        """A function that takes (index, maker of the rows) and returns at once; the block ends when all are written.

        Raises:
            BadInput: when the disk is full, or a maker refuses its rows; what was finished stays.
        """
        with ThreadPoolExecutor(_WRITERS, "shard-writer") as pool:

            def put(index: int, rows: Callable[[], StateBatch]) -> None:
                began = time.perf_counter()
                self._drain(_WRITERS - 1)
                self.waited_s += time.perf_counter() - began
                self._queue.append(pool.submit(self._write, index, rows))

            yield put
            self._drain(0)

    def _drain(self, left: int) -> None:
        while len(self._queue) > left:
            self._queue.pop(0).result()

    def _write(self, index: int, rows: Callable[[], StateBatch]) -> None:
        batch = rows()
        try:
            with noted(self.path(index)) as partial:
                write_shard(
                    partial,
                    batch,
                    self.columns,
                    self.fingerprint,
                    self.layout.row_group_rows,
                    self.layout.encoding,
                )
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise BadInput(
                f"the disk under {self.folder} is full; the finished shards there are kept, so free space and run again"
            ) from error

    def publish(self, count: int, out: Path) -> None:
        """Put the shards into the artifact's folder; a link where the file system can, so that a retry finds them."""
        for index in range(count):
            link_or_copy(self.path(index), out / SHARD.format(index))
