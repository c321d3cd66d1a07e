"""Where units' activations come from: columns of the shards in both polarities, or SAE latents encoded from them.

Shapes: R rows of a shard, B rows of a block, C columns, N events, n windows of W tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from assets.activations.artifact import ActivationShards
from assets.contexts.config import ENCODED_ROWS
from assets.contexts.ranking import ranges
from assets.contexts.tally import Events, load_arrays, save_arrays
from assets.sae.artifact import Sae
from resources.errors import BadInput
from resources.shards import StateBatch
from resources.units import Unit, parse_unit

if TYPE_CHECKING:
    import torch

BLOCK_CELLS = 1 << 21
"""Scalars looked at together: small enough for a core's cache, large enough that numpy's overhead does not show."""
_MAGNITUDE = 0x7FFF
"""All bits of a float16 but the sign; as integers, magnitudes order as they do as numbers."""


class View(Protocol):
    """One shard as a source sees it."""

    def events(self) -> Iterator[tuple[slice, Events]]:
        """(rows, where units fire in them) for consecutive blocks; event rows count from the block's first."""
        ...

    def windows(self, unit_n: np.ndarray, first_n: np.ndarray, last_n: np.ndarray, width: int) -> np.ndarray:
        """float32[n, width]: the units' activations at rows [first, last) of the shard, then zeros.

        0 where they do not fire.
        """
        ...


class Source(Protocol):
    """Units that are measured on the same tokens."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """Numbered by their place here."""
        ...

    @property
    def threshold_U(self) -> np.ndarray:
        """float32: a unit fires above this."""
        ...

    def view(self, shard: StateBatch, index: int) -> View:
        """Shard `index`; views may keep what they computed in files, so the same index means the same shard."""
        ...


@dataclass(frozen=True)
class Columns:
    """Columns of shards in both polarities; unit 2c is column c's positive side, 2c + 1 its negative."""

    units: tuple[Unit, ...]
    limit_C: np.ndarray
    """float16: a column fires where its magnitude exceeds this."""

    @classmethod
    def open(cls, folder: Path, columns: tuple[str, ...], firing_fraction: float) -> "Columns":
        """The columns of an activation artifact, with thresholds from its statistics."""
        statistics = ActivationShards(folder).table()
        if tuple(statistics["column"].to_pylist()) != columns:
            raise BadInput(f"the statistics in {folder} are not of its shards: compute the shards again")
        limit_C = (statistics["abs_p99"].to_numpy().astype(np.float64) * firing_fraction).astype(np.float16)
        return cls(tuple(unit for column in columns for unit in _both_polarities(column)), limit_C)

    @property
    def threshold_U(self) -> np.ndarray:
        """float32[2C]."""
        return np.repeat(self.limit_C.astype(np.float32), 2)

    def view(self, shard: StateBatch, index: int) -> "ColumnsView":  # noqa: ARG002
        """The shard's states."""
        return ColumnsView(self, shard.state_BC)


@dataclass(frozen=True)
class ColumnsView:
    """One shard's columns."""

    source: Columns
    state_RC: np.ndarray

    def events(self) -> Iterator[tuple[slice, Events]]:
        """Found on the bit patterns, without a float operation on the many scalars below the threshold."""
        num_rows, num_columns = self.state_RC.shape
        limit_C = self.source.limit_C.view(np.int16)
        step = max(1, BLOCK_CELLS // num_columns)
        for first in range(0, num_rows, step):
            rows = slice(first, min(first + step, num_rows))
            bits_BC = np.ascontiguousarray(self.state_RC[rows]).view(np.int16)
            flat_N = np.flatnonzero((bits_BC & _MAGNITUDE) > limit_C)
            row_N, column_N = np.divmod(flat_N, num_columns)
            bits_N = bits_BC.reshape(-1)[flat_N]
            value_N = (bits_N & _MAGNITUDE).view(np.float16).astype(np.float32)
            yield rows, Events(row_N, 2 * column_N + (bits_N < 0), value_N)

    def windows(self, unit_n: np.ndarray, first_n: np.ndarray, last_n: np.ndarray, width: int) -> np.ndarray:
        """Gathered from the states."""
        row_nW = first_n[:, None] + np.arange(width)
        inside_nW = row_nW < last_n[:, None]
        value_nW = self.state_RC[np.where(inside_nW, row_nW, 0), (unit_n // 2)[:, None]].astype(np.float32)
        value_nW *= (1 - 2 * (unit_n % 2)).astype(np.float32)[:, None]
        value_nW[~inside_nW | (value_nW <= self.source.threshold_U[unit_n][:, None])] = 0
        return value_nW


@dataclass(frozen=True)
class Latents:
    """SAE latents, encoded once by the SAE's fixed thresholds; the sparse result of each shard is kept in a file."""

    sae: Sae
    scratch: Path
    """Folder for the encoded shards: about 12 bytes per active latent."""
    tag: str
    """Names what was encoded, so that another SAE's files are never taken."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """One per latent."""
        return tuple(Unit("latent", -1, "", latent, 1) for latent in range(self.sae.d_sae))

    @property
    def threshold_U(self) -> np.ndarray:
        """float32[F]."""
        return np.asarray(self.sae.threshold_F.cpu(), dtype=np.float32)

    def view(self, shard: StateBatch, index: int) -> "LatentsView":
        """The shard's active latents, from its file or encoded now."""
        path = self.scratch / f"latents-{self.tag}-{index:05d}.npz"
        if path.exists():
            arrays = load_arrays(path)
        else:
            arrays = self._encode(shard.state_BC)
            save_arrays(path, arrays)
        return LatentsView(arrays["first"], arrays["latent"], arrays["value"])

    def _encode(self, state_RC: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            parts = [
                self._encode_rows(torch.from_numpy(state_RC[first : first + ENCODED_ROWS]))
                for first in range(0, len(state_RC), ENCODED_ROWS)
            ]
        counts_R = np.concatenate([counts for counts, _, _ in parts])
        return {
            "first": np.concatenate([[0], np.cumsum(counts_R)]),
            "latent": np.concatenate([latent for _, latent, _ in parts]),
            "value": np.concatenate([value for _, _, value in parts]),
        }

    def _encode_rows(self, state_BC: "torch.Tensor") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Active latents per row, and which and how much."""
        row_N, latent_N, value_N = self.sae.encode(state_BC.to(self.sae.W_enc_DF.device).float())
        counts_B = np.bincount(row_N.cpu().numpy(), minlength=len(state_BC))
        return counts_B, latent_N.cpu().numpy().astype(np.int32), value_N.cpu().numpy()


@dataclass(frozen=True)
class LatentsView:
    """One shard's active latents, row after row."""

    first_R: np.ndarray
    """int64[R + 1]: where each row's latents begin."""
    latent_N: np.ndarray
    value_N: np.ndarray

    def events(self) -> Iterator[tuple[slice, Events]]:
        """Blocks of rows."""
        for start in range(0, self._num_rows, ENCODED_ROWS):
            rows = slice(start, min(start + ENCODED_ROWS, self._num_rows))
            first, last = self.first_R[rows.start], self.first_R[rows.stop]
            counts_B = np.diff(self.first_R[rows.start : rows.stop + 1])
            row_N = np.repeat(np.arange(len(counts_B)), counts_B)
            yield rows, Events(row_N, self.latent_N[first:last].astype(np.int64), self.value_N[first:last])

    @cached_property
    def _by_latent(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys latent x rows + row, ascending, and where each of them stands in `latent_N`."""
        row_N = np.repeat(np.arange(self._num_rows), np.diff(self.first_R))
        key_N = self.latent_N.astype(np.int64) * self._num_rows + row_N
        order = np.argsort(key_N)
        return key_N[order], order

    @property
    def _num_rows(self) -> int:
        return len(self.first_R) - 1

    def windows(self, unit_n: np.ndarray, first_n: np.ndarray, last_n: np.ndarray, width: int) -> np.ndarray:
        """Where a latent's active tokens within a window begin and end is found by bisection."""
        key_N, order = self._by_latent
        base_n = unit_n * self._num_rows
        begin_n, end_n = np.searchsorted(key_N, base_n + first_n), np.searchsorted(key_N, base_n + last_n)
        count_n = end_n - begin_n
        index = ranges(begin_n, count_n)
        context = np.repeat(np.arange(len(unit_n)), count_n)
        value_nW = np.zeros((len(unit_n), width), np.float32)
        value_nW[context, key_N[index] - (base_n + first_n)[context]] = self.value_N[order[index]]
        return value_nW


def _both_polarities(column: str) -> tuple[Unit, Unit]:
    """The units of a component (`L3.gate_proj`) or a neuron (`L2.17`)."""
    kind = "neuron" if column.rpartition(".")[2].isdigit() else "adapter"
    return parse_unit(f"{kind}:{column}:+"), parse_unit(f"{kind}:{column}:-")
