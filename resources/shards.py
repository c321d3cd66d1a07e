"""Numbered Parquet shards of per-token scalars: written by the activations room, read by every room right of it.

One row per token: `rollout_id`, `position`, `token_id`, `state` (fixed-size list of float16, one per column).
A rollout never spans two shards, rows are ordered by (rollout_id, position), and every row group reads alone.
Shapes: B rows (tokens), C columns (components or neurons).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resources.columns import required
from resources.errors import BadInput

SHARD = "shard-{:05d}.parquet"
SHARDS = "shard-*.parquet"
"""Every shard of a folder, and nothing else."""
_COLUMNS_KEY = b"columns"
_FINGERPRINT_KEY = b"fingerprint"
_IDS = {
    "rollout_id": "rollout of the token",
    "position": "its place there, from 0",
    "token_id": "id in the base model's vocabulary",
}
DECODED_ROWS = 1024
"""Rows decoded at once: Arrow's buffers for them stay in the cache; whole row groups take a quarter longer, in a fresh
process two to three times as long."""
Encoding = Literal["plain", "byte_stream_split"]
"""How the scalars lie in a page; byte_stream_split is 6 % smaller, but DuckDB 2.0 cannot read it for float16."""


@dataclass(frozen=True)
class StateBatch:
    """Consecutive tokens and their scalars."""

    rollout_id_B: np.ndarray
    position_B: np.ndarray
    token_id_B: np.ndarray
    state_BC: np.ndarray
    """float16."""

    def __len__(self) -> int:
        return len(self.rollout_id_B)

    def rows(self, rows: slice) -> "StateBatch":
        """A view of some of the rows."""
        return StateBatch(self.rollout_id_B[rows], self.position_B[rows], self.token_id_B[rows], self.state_BC[rows])


@dataclass(frozen=True)
class RowGroup:
    """Where one row group lies and which rollouts it touches."""

    path: Path
    index: int
    """Number of the row group inside its file."""
    num_rows: int
    first_rollout: int
    last_rollout: int


def shard_schema(columns: tuple[str, ...], fingerprint: str) -> pa.Schema:
    """The schema of every shard; `fingerprint` says what the scalars were computed from."""
    element = pa.field("element", pa.float16(), nullable=False)
    fields = [required(name, pa.int32(), text) for name, text in _IDS.items()]
    scalars = (
        "one scalar per component or neuron, in the order of `columns` of the schema's metadata: A x of a component, "
        "before scale and B"
    )
    fields.append(required("state", pa.list_(element, len(columns)), scalars))
    return pa.schema(fields, {_COLUMNS_KEY: json.dumps(columns).encode(), _FINGERPRINT_KEY: fingerprint.encode()})


def write_shard(
    path: Path,
    batch: StateBatch,
    columns: tuple[str, ...],
    fingerprint: str,
    row_group_rows: int,
    encoding: Encoding = "plain",
) -> None:
    """Write one shard at once; the same rows give the same bytes.

    zstd level 1, since higher levels gain less than 0.1 % on float16.
    """
    schema = shard_schema(columns, fingerprint)
    ids_B3 = (batch.rollout_id_B, batch.position_B, batch.token_id_B)
    flat = pa.array(np.ascontiguousarray(batch.state_BC, dtype=np.float16).reshape(-1))
    state = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("state").type)
    arrays = [*(pa.array(ids_B, pa.int32()) for ids_B in ids_B3), state]
    with path.open("wb") as file:
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=schema),
            file,
            row_group_rows,
            compression="zstd",
            compression_level=1,
            use_dictionary=["rollout_id", "token_id"],  # pyright: ignore[reportArgumentType]
            column_encoding={"position": "DELTA_BINARY_PACKED", "state.list.element": encoding.upper()},
            write_statistics=["rollout_id", "position"],  # pyright: ignore[reportArgumentType]
            write_page_checksum=True,
        )


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A shard to read from; what is wrong with it, its pages too, is bad input that names the file."""
    try:
        with _checked(path) as file:
            yield file
    except OSError as error:
        raise BadInput(f"{path} is damaged ({error}); delete it and compute the shards again") from error


def _checked(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(
            f"{path} is truncated or no Parquet file ({error}); delete it and compute the shards again"
        ) from error
    metadata = file.schema_arrow.metadata or {}
    if not {_COLUMNS_KEY, _FINGERPRINT_KEY} <= metadata.keys():
        raise BadInput(f"{path} is no activation shard: its schema names no columns; compute the shards again")
    columns = tuple(json.loads(metadata[_COLUMNS_KEY]))
    if file.schema_arrow.remove_metadata() != shard_schema(columns, "").remove_metadata():
        raise BadInput(f"{path} is of another schema than activation shards; compute the shards again")
    return file


def _row_groups(path: Path, file: pq.ParquetFile) -> Iterator[RowGroup]:
    for index in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(index)
        rollouts = group.column(0).statistics
        yield RowGroup(path, index, group.num_rows, int(rollouts.min), int(rollouts.max))


def _concatenated(parts: list[StateBatch]) -> StateBatch:
    if len(parts) == 1:
        return parts[0]
    return StateBatch(
        np.concatenate([part.rollout_id_B for part in parts]),
        np.concatenate([part.position_B for part in parts]),
        np.concatenate([part.token_id_B for part in parts]),
        np.concatenate([part.state_BC for part in parts]),
    )


@dataclass(frozen=True)
class Shards:
    """The shards of one folder, read in order, a row group at a time."""

    paths: tuple[Path, ...] = field(repr=False)
    columns: tuple[str, ...]
    """Component ids (`L3.gate_proj`) or neurons (`L2.17`), in the order of `state`."""
    fingerprint: str
    groups: tuple[RowGroup, ...] = field(repr=False)
    """Every row group, in order; its place here is what `read_row_group` takes."""

    @classmethod
    def open(cls, folder: Path) -> "Shards":
        """The shards in `folder`.

        Raises:
            BadInput: when there are none, one is missing, truncated, of another schema or from another adapter.
        """
        paths = tuple(sorted(folder.glob(SHARDS)))
        if not paths:
            raise BadInput(f"{folder} holds no activation shards (no {SHARDS}); compute them first")
        if [path.name for path in paths] != [SHARD.format(i) for i in range(len(paths))]:
            raise BadInput(
                f"{folder} lacks a shard between {paths[0].name} and {paths[-1].name}; compute the shards again"
            )
        return cls.of(paths)

    @classmethod
    def of(cls, paths: tuple[Path, ...]) -> "Shards":
        """Some shards by path, in order (one process's share, say)."""
        groups: list[RowGroup] = []
        metadata: dict[bytes, bytes] = {}
        for path in paths:
            with _opened(path) as file:
                metadata = metadata or file.schema_arrow.metadata
                if file.schema_arrow.metadata != metadata:
                    raise BadInput(
                        f"{path} is from another adapter or dataset than {paths[0]}; compute the shards again"
                    )
                found = list(_row_groups(path, file))
            if groups and found and found[0].first_rollout <= groups[-1].last_rollout:
                raise BadInput(f"{path} does not go on where {groups[-1].path.name} ends; compute the shards again")
            groups.extend(found)
        columns = tuple(json.loads(metadata[_COLUMNS_KEY]))
        return cls(paths, columns, metadata[_FINGERPRINT_KEY].decode(), tuple(groups))

    @property
    def num_tokens(self) -> int:
        """Rows over all shards."""
        return sum(group.num_rows for group in self.groups)

    def read_row_group(self, index: int) -> StateBatch:
        """One row group, alone.

        Raises:
            BadInput: when its pages are damaged.
        """
        return self._read([self.groups[index]])

    def rollout_ids(self, index: int) -> np.ndarray:
        """int32 rollout of every row of one row group, without reading its scalars.

        Raises:
            BadInput: when its pages are damaged.
        """
        group = self.groups[index]
        with _opened(group.path) as file:
            return file.read_row_group(group.index, columns=["rollout_id"]).column(0).to_numpy()

    def read_shard(self, index: int) -> StateBatch:
        """One whole shard: complete rollouts.

        Raises:
            BadInput: when its pages are damaged.
        """
        return self._read([group for group in self.groups if group.path == self.paths[index]])

    def ids(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rollout_id, position) of all tokens, a shard at a time, without reading states.

        Raises:
            BadInput: when pages are damaged.
        """
        for path in self.paths:
            with _opened(path) as file:
                table = file.read(["rollout_id", "position"], use_threads=False)
            yield table.column(0).to_numpy(), table.column(1).to_numpy()

    def batches(self, rows: int) -> Iterator[StateBatch]:
        """All tokens in order, `rows` at a time (the last batch may be shorter); memory is bounded by `rows`."""
        held: list[StateBatch] = []
        count = 0
        for index in range(len(self.groups)):
            held.append(self.read_row_group(index))
            count += len(held[-1])
            if count < rows:
                continue
            joined = _concatenated(held)
            end = count - count % rows
            for start in range(0, end, rows):
                yield joined.rows(slice(start, start + rows))
            held, count = [joined.rows(slice(end, None))], count - end
        if count:
            yield _concatenated(held)

    def rollout(self, rollout_id: int) -> StateBatch:
        """All tokens of one rollout; reads only the row groups that touch it.

        Raises:
            KeyError: when no token of it was captured.
        """
        touched = [group for group in self.groups if group.first_rollout <= rollout_id <= group.last_rollout]
        if touched:
            batch = self._read(touched)
            mine = np.flatnonzero(batch.rollout_id_B == rollout_id)
            if len(mine):
                return batch.rows(slice(int(mine[0]), int(mine[-1]) + 1))
        raise KeyError(f"rollout {rollout_id} is in none of the shards")

    def _read(self, groups: list[RowGroup]) -> StateBatch:
        """Some row groups of one file, decoded `DECODED_ROWS` at a time into memory that torch may write to."""
        path, rows = groups[0].path, sum(group.num_rows for group in groups)
        read = StateBatch(
            np.empty(rows, np.int32),
            np.empty(rows, np.int32),
            np.empty(rows, np.int32),
            np.empty((rows, len(self.columns)), np.float16),
        )
        end = 0
        with _opened(path) as file:
            for piece in file.iter_batches(
                DECODED_ROWS, row_groups=[group.index for group in groups], use_threads=False
            ):
                begin, end = end, end + len(piece)
                part = read.rows(slice(begin, end))
                part.rollout_id_B[:] = piece.column("rollout_id").to_numpy()
                part.position_B[:] = piece.column("position").to_numpy()
                part.token_id_B[:] = piece.column("token_id").to_numpy()
                part.state_BC[:] = piece.column("state").flatten().to_numpy().reshape(part.state_BC.shape)
        return read
