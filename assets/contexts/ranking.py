"""The best k entries of every unit from a stream, exactly, with memory bounded by units x k.

An entry is (unit, score, token); the best have the highest score, ties go to the lower token. Keeping the best is
associative with or without a cap per rollout, so parts of a stream may be ranked apart and merged in any order.
Shapes: N entries, U units.
"""

from dataclasses import dataclass, field

import numpy as np

_LEAST_BUFFER = 1 << 18
ROLLOUT_SHIFT = 32
"""A token is one int64, rollout_id << 32 | position, so that tokens order as (rollout, position) do."""


@dataclass(frozen=True)
class Entries:
    """Entries as columns; in a finished ranking sorted by unit, then best first."""

    unit_N: np.ndarray
    """int64."""
    score_N: np.ndarray
    """float32."""
    token_N: np.ndarray
    """int64, see `ROLLOUT_SHIFT`."""
    value_N: np.ndarray
    """float32: what the entry carries along; the activation, where the score is a random number."""

    def __len__(self) -> int:
        return len(self.unit_N)

    def take(self, index: np.ndarray) -> "Entries":
        """Some of them, in the given order."""
        return Entries(self.unit_N[index], self.score_N[index], self.token_N[index], self.value_N[index])

    def place(self) -> np.ndarray:
        """0, 1, 2, ... within each unit; the entries are sorted by unit."""
        return _place_in_run(self.unit_N)


@dataclass
class Ranking:
    """The best `k` of each unit so far, at most `cap` of them from one rollout (0: no cap).

    Entries are compared with the unit's k-th best when they are offered, and the few that pass are sorted in bulk.
    """

    num_units: int
    k: int
    cap: int = 0
    bar_U: np.ndarray = field(init=False)
    """The k-th best score of each unit at the last sort; -inf while there are fewer."""
    _waiting: list[Entries] = field(default_factory=list)
    _num_waiting: int = 0

    def __post_init__(self) -> None:
        self.bar_U = np.full(self.num_units, -np.inf, np.float32)

    def offer(self, entries: Entries) -> None:
        """Entries in any order; each token at most once per unit over all offers."""
        self.keep(entries.take(np.flatnonzero(entries.score_N >= self.bar_U[entries.unit_N])))

    def keep(self, entries: Entries) -> None:
        """Entries already known to reach `bar_U`."""
        self._waiting.append(entries)
        self._num_waiting += len(entries)
        if self._num_waiting > max(3 * self.num_units * self.k, _LEAST_BUFFER):
            self.best()

    def best(self) -> Entries:
        """The ranking so far, sorted by unit, then best first."""
        joined = _joined(self._waiting)
        ordered = joined.take(np.lexsort((joined.token_N, -joined.score_N, joined.unit_N)))
        if self.cap:
            ordered = ordered.take(np.flatnonzero(_place_in_rollout(ordered) < self.cap))
        place_N = ordered.place()
        last = np.flatnonzero(place_N == self.k - 1)
        self.bar_U[ordered.unit_N[last]] = ordered.score_N[last]
        best = ordered.take(np.flatnonzero(place_N < self.k))
        self._waiting, self._num_waiting = [best], len(best)
        return best


def _joined(parts: list[Entries]) -> Entries:
    if not parts:
        return Entries(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.float32))
    return Entries(
        np.concatenate([part.unit_N for part in parts]),
        np.concatenate([part.score_N for part in parts]),
        np.concatenate([part.token_N for part in parts]),
        np.concatenate([part.value_N for part in parts]),
    )


def _place_in_run(sorted_N: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal neighbours."""
    index_N = np.arange(len(sorted_N))
    starts_N = np.where(np.diff(sorted_N, prepend=-1) != 0, index_N, 0)
    return index_N - np.maximum.accumulate(starts_N)


def _place_in_rollout(ordered: Entries) -> np.ndarray:
    """How many better entries of the same unit and rollout stand before each."""
    rollout_N = ordered.token_N >> ROLLOUT_SHIFT
    grouped = np.lexsort((rollout_N, ordered.unit_N))
    new = (np.diff(ordered.unit_N[grouped], prepend=-1) != 0) | (np.diff(rollout_N[grouped], prepend=-1) != 0)
    place_N = np.empty(len(ordered), np.int64)
    place_N[grouped] = _place_in_run(np.cumsum(new))
    return place_N
