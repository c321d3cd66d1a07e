"""Tokens in a random order from shards larger than memory: every training token once per epoch, order set by the seed.

Row groups are shuffled and taken window by window; within a window the tokens are shuffled. Memory holds one window,
and so does the device if it has its own.
The order is computed from row counts alone, so a resumed training reads only from where it stopped.
Shapes: B tokens, D components that enter.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from assets.sae.config import SaeConfig
from resources.components import parse_component
from resources.errors import BadInput
from resources.shards import Shards

FEWEST_READERS = 2
"""Threads that decode row groups, or one per thread of torch: a GPU trains faster than one of them reads."""
MIXED_GROUPS = 8
"""Row groups that a first sample is drawn from."""


@dataclass(frozen=True)
class Split:
    """Rollouts by use; no token of a rollout is in two of them."""

    training: np.ndarray
    calibration: np.ndarray
    """For the fixed threshold."""
    evaluation: np.ndarray
    """For everything that is reported."""


def split_rollouts(rollout_ids: np.ndarray, fraction: float, seed: int) -> Split:
    """Hold out `fraction` of the rollouts, at least two: half for calibration, half for evaluation.

    Raises:
        BadInput: for fewer than three rollouts.
    """
    ids = np.unique(rollout_ids)
    if len(ids) < 3:
        raise BadInput(f"the shards hold {len(ids)} rollouts: training and holding out need at least 3")
    held = min(max(2, round(fraction * len(ids))), len(ids) - 1)
    mixed = np.random.default_rng([seed, 1]).permutation(ids)
    evaluation = (held + 1) // 2
    return Split(np.sort(mixed[held:]), np.sort(mixed[evaluation:held]), np.sort(mixed[:evaluation]))


@dataclass(frozen=True)
class Rows:
    """The tokens of some rollouts, and the columns of them that enter."""

    shards: Shards
    rollouts: np.ndarray
    columns: np.ndarray
    """Indices into the shards' columns."""
    counts_G: np.ndarray
    """Rows of each row group that belong to `rollouts`."""

    @property
    def num_tokens(self) -> int:
        """All of them."""
        return int(self.counts_G.sum())

    def load(self, group: int) -> np.ndarray:
        """float16 [rows, D] of one row group."""
        batch = self.shards.read_row_group(group)
        state = batch.state_BC
        if self.counts_G[group] < len(batch):
            state = state[np.isin(batch.rollout_id_B, self.rollouts)]
        return state if len(self.columns) == state.shape[1] else state[:, self.columns]

    def in_order(self, most: int) -> Iterator[np.ndarray]:
        """Row groups in order until `most` tokens were given."""
        for group in np.flatnonzero(self.counts_G):
            part = self.load(int(group))[:most]
            yield part
            most -= len(part)
            if most <= 0:
                return


def entering_columns(config: SaeConfig, columns: tuple[str, ...]) -> np.ndarray:
    """Indices of the columns that `sae.layers` and `sae.projections` let in.

    Raises:
        BadInput: when none does, a layer is not there, or the shards have another width than `sae.d_in`.
    """
    if config.d_in is not None and config.d_in != len(columns):
        raise BadInput(
            f"sae.d_in is {config.d_in}, but the activation shards have {len(columns)} columns: correct one of them"
        )
    return np.array(config.entering([parse_component(column) for column in columns]))


@dataclass(frozen=True)
class Census:
    """Which rollouts each row group holds, and how many rows of each: small, however many tokens there are."""

    shards: Shards
    rollouts_G: list[np.ndarray]
    counts_G: list[np.ndarray]

    @classmethod
    def take(cls, shards: Shards) -> "Census":
        """Read the rollout ids of every row group once."""
        found = [np.unique(shards.rollout_ids(i), return_counts=True) for i in range(len(shards.groups))]
        return cls(shards, [ids for ids, _ in found], [counts for _, counts in found])

    @property
    def rollouts(self) -> np.ndarray:
        """Every rollout of the shards, ascending."""
        return np.unique(np.concatenate(self.rollouts_G))

    def rows(self, rollouts: np.ndarray, columns: np.ndarray) -> Rows:
        """The tokens of some rollouts; `columns` are indices into the shards' columns."""
        per_group = zip(self.rollouts_G, self.counts_G, strict=True)
        counts = np.array([counts[np.isin(ids, rollouts)].sum() for ids, counts in per_group], dtype=np.int64)
        return Rows(self.shards, rollouts, columns, counts)


@dataclass(frozen=True)
class Order:
    """The random order of the training tokens, cut into batches of nearly equal size."""

    rows: Rows
    batch_tokens: int
    window_tokens: int
    seed: int

    @property
    def batches_per_epoch(self) -> int:
        """So many batches that each has about `batch_tokens` tokens and none is a small rest."""
        return max(1, round(self.rows.num_tokens / self.batch_tokens))

    def distinct_tokens(self, batches: int) -> int:
        """Tokens of the first so many batches, each counted once."""
        return int(self._cuts()[min(batches, self.batches_per_epoch)])

    def sample(self, tokens: int) -> np.ndarray:
        """Up to `tokens` tokens from a few random row groups: float16 [n, D]."""
        groups = np.random.default_rng([self.seed, 2]).permutation(np.flatnonzero(self.rows.counts_G))[:MIXED_GROUPS]
        each = -(-tokens // len(groups))
        return np.concatenate([_thinned(self.rows.load(int(group)), each) for group in groups])[:tokens]

    def batches(self, start: int, stop: int, device: str = "cpu") -> Iterator[torch.Tensor]:
        """Batches `start` to `stop` (counted over all epochs) as float16 [B, D] on the device."""
        cuts = self._cuts()
        pieces = self._pieces(self._plan(start, stop, cuts), device)
        while start < stop:
            first = start % self.batches_per_epoch
            last = min(self.batches_per_epoch, first + stop - start)
            yield from _recut(pieces, cuts[first : last + 1])
            start += last - first

    def _cuts(self) -> np.ndarray:
        """Where an epoch's batches begin and end."""
        return np.linspace(0, self.rows.num_tokens, self.batches_per_epoch + 1).round().astype(np.int64)

    def _plan(self, start: int, stop: int, cuts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row groups of each window that batches `start` to `stop` need, and the order in which its rows are taken."""
        first_epoch, first = divmod(start, self.batches_per_epoch)
        skip = int(cuts[first])
        for epoch in range(first_epoch, -(-stop // self.batches_per_epoch)):
            for number, groups in enumerate(self._windows(epoch)):
                size = int(self.rows.counts_G[groups].sum())
                if skip < size:
                    order = np.random.default_rng([self.seed, 4, epoch, number]).permutation(size)
                    yield np.sort(groups), order[skip:]
                skip = max(0, skip - size)

    def _windows(self, epoch: int) -> list[np.ndarray]:
        """Row groups of each window: about equally many tokens, as many windows as the buffer asks for."""
        counts = self.rows.counts_G
        groups = np.random.default_rng([self.seed, 3, epoch]).permutation(np.flatnonzero(counts))
        ends = np.cumsum(counts[groups])
        number = -(-self.rows.num_tokens // self.window_tokens)
        of_group = np.minimum((ends - counts[groups] // 2) * number // ends[-1], number - 1)
        return [chosen for chosen in (groups[of_group == i] for i in range(number)) if len(chosen)]

    def _fill(self, room: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """All tokens of the groups; each reader holds one more row group while it decodes."""
        counts = self.rows.counts_G[groups]
        window = room[: counts.sum()]

        def fill(group: int, end: int, count: int) -> None:
            window[end - count : end] = self.rows.load(group)

        with ThreadPoolExecutor(max(FEWEST_READERS, torch.get_num_threads())) as readers:
            list(readers.map(fill, groups.tolist(), np.cumsum(counts).tolist(), counts.tolist()))
        return window

    def _pieces(
        self, plan: Iterator[tuple[np.ndarray, np.ndarray]], device: str
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(window, random row indices) one after the other, in one window's memory.

        A device with memory of its own frees that room as soon as it has the window: the next one is read meanwhile.
        """
        windows = self._read(plan)
        held = torch.empty(0)
        with ThreadPoolExecutor(1) as ahead:
            reading = ahead.submit(next, windows, None)
            while (read := reading.result()) is not None:
                window, order = read
                if window is not None:
                    held = torch.from_numpy(window).to(device)
                piece = held, torch.from_numpy(order).to(device)
                if held.device.type == "cpu":
                    yield piece
                    reading = ahead.submit(next, windows, None)
                else:
                    reading = ahead.submit(next, windows, None)
                    yield piece

    def _read(self, plan: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
        """Each window overwrites the last one; None where it is the same: what fits into one window is read once."""
        room = np.empty((self._largest_window(), len(self.rows.columns)), np.float16)
        held = np.empty(0, np.int64)
        for groups, order in plan:
            same = np.array_equal(groups, held)
            held = groups
            yield None if same else self._fill(room, groups), order

    def _largest_window(self) -> int:
        """Tokens, at most: windows are of equal size, but for a row group at either end."""
        number = -(-self.rows.num_tokens // self.window_tokens)
        return min(self.rows.num_tokens, -(-self.rows.num_tokens // number) + 2 * int(self.rows.counts_G.max()))


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Evenly spaced rows, so that a sample from ordered tokens sees every rollout of the group."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _recut(pieces: Iterator[tuple[torch.Tensor, torch.Tensor]], cuts: np.ndarray) -> Iterator[torch.Tensor]:
    """Batches of `diff(cuts)` rows from the concatenated pieces."""
    window, order = next(pieces)
    used = 0
    for size in np.diff(cuts):
        parts: list[torch.Tensor] = []
        missing = int(size)
        while missing:
            if used == len(order):
                window, order = next(pieces)
                used = 0
            taken = order[used : used + missing]
            parts.append(window.index_select(0, taken))
            used += len(taken)
            missing -= len(taken)
        yield parts[0] if len(parts) == 1 else torch.cat(parts)
