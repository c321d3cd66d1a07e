"""Finished shards in the scratch folder: written behind the forward pass, marked when done, checked before reuse."""

import errno
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from assets.activations.config import ActivationsConfig, NeuronsConfig
from resources.errors import BadInput
from resources.keys import file_digest
from resources.links import link_or_copy
from resources.shards import SHARD, StateBatch, write_shard
from resources.whole import whole

_WRITERS = 2
"""Threads, each with one shard: bounds memory, and only writers slower than the model are waited for."""


class DoneMarker(BaseModel, frozen=True, extra="forbid"):
    """Beside each finished shard: what it was made from, and its bytes."""

    fingerprint: str
    sha256: str


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

    def marker(self, index: int) -> Path:
        """The file whose presence says that the shard is whole."""
        return self.path(index).with_suffix(".done.json")

    def trouble(self, index: int) -> str | None:
        """Why a shard must be computed: an empty string when it is not there yet, None when it is good."""
        path, marker = self.path(index), self.marker(index)
        if not marker.exists():
            return ""
        try:
            done = DoneMarker.model_validate_json(marker.read_bytes())
        except ValidationError:
            return "its done-marker is damaged"
        if done.fingerprint != self.fingerprint:
            return "it is from another adapter, model, dataset or layout"
        if not path.exists() or file_digest(path) != done.sha256:
            return "it is truncated or damaged"
        return None

    def drop(self, index: int) -> None:
        """Forget a shard, so that no other process takes it for done."""
        self.marker(index).unlink(missing_ok=True)

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
            write_shard(
                self.path(index),
                batch,
                self.columns,
                self.fingerprint,
                self.layout.row_group_rows,
                self.layout.encoding,
            )
            done = DoneMarker(fingerprint=self.fingerprint, sha256=file_digest(self.path(index)))
            with whole(self.marker(index)) as partial:
                partial.write_text(done.model_dump_json())
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
