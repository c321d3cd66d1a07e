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
        return _place_in_group(self.unit_N)


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
        order = best_first(joined)
        if self.cap:
            order = order[_place_in_rollout(joined.unit_N[order], joined.token_N[order]) < self.cap]
        place_N = _place_in_group(joined.unit_N[order])
        last = order[place_N == self.k - 1]
        self.bar_U[joined.unit_N[last]] = joined.score_N[last]
        best = joined.take(order[place_N < self.k])
        self._waiting, self._num_waiting = [best], len(best)
        return best


def best_first(entries: Entries) -> np.ndarray:
    """Indices that sort entries by unit, then falling score, then token.

    One sort of 64-bit keys (unit, score), which numpy does with vector instructions, then a sort of ties only: about
    five times as fast as `lexsort` by all three.
    """
    bits_N = entries.score_N.view(np.int32)
    rising_N = bits_N ^ ((bits_N >> 31) & 0x7FFFFFFF)  # integers that order as the float32 do
    key_N = (entries.unit_N << 32) - rising_N
    order = np.argsort(key_N)
    sorted_N = key_N[order]
    same = sorted_N[1:] == sorted_N[:-1]
    tied = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    among = order[tied]
    order[tied] = among[np.lexsort((entries.token_N[among], sorted_N[tied]))]
    return order


def ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """first, first + 1, ..., `count` numbers for each pair of them, one range behind the other."""
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(count.sum())


def _joined(parts: list[Entries]) -> Entries:
    if not parts:
        return Entries(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.float32))
    return Entries(
        np.concatenate([part.unit_N for part in parts]),
        np.concatenate([part.score_N for part in parts]),
        np.concatenate([part.token_N for part in parts]),
        np.concatenate([part.value_N for part in parts]),
    )


def _place_in_group(sorted_N: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal numbers; they are sorted and not negative."""
    counts = np.bincount(sorted_N)
    return ranges(np.zeros_like(counts), counts)


def _place_in_rollout(unit_N: np.ndarray, token_N: np.ndarray) -> np.ndarray:
    """How many entries of the same unit and rollout stand before each."""
    rollout_N = token_N >> ROLLOUT_SHIFT
    grouped = np.lexsort((rollout_N, unit_N))
    new = (np.diff(unit_N[grouped], prepend=-1) != 0) | (np.diff(rollout_N[grouped], prepend=-1) != 0)
    place_N = np.empty(len(unit_N), np.int64)
    place_N[grouped] = _place_in_group(np.cumsum(new))
    return place_N
