"""Where units stay silent: one random pool of tokens for all units, and how quiet each unit is around each of them.

Shapes: P pool tokens, U units, R rows of a shard, N events.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from assets.contexts.ranking import ranges
from assets.contexts.tally import Events, priorities

_LOUD = 0x8000
"""Added where the unit fires on the pool token itself; above any count of neighbours (silent_radius <= 4096)."""
_POOL_STREAM, _FIRST_UNIT_STREAM = 1, 1000


@dataclass(frozen=True)
class Pool:
    """Random tokens, the same for every unit, number of processes and order of reading."""

    token_P: np.ndarray
    """int64, ascending."""
    radius: int
    """Neighbours either side that are looked at."""

    @classmethod
    def draw(cls, token_parts: Iterable[np.ndarray], size: int, radius: int, seed: int) -> "Pool":
        """The `size` tokens with the highest random priority of all parts; memory is bounded by size and part."""
        kept = np.empty(0, np.int64)
        for token_R in token_parts:
            joined = np.concatenate([kept, token_R])
            order = np.lexsort((joined, -priorities(joined, seed, _POOL_STREAM)))
            kept = joined[order[:size]]
        return cls(np.sort(kept), radius)

    def within(self, token_R: np.ndarray) -> slice:
        """The pool tokens among a shard's, which hold a whole range of tokens."""
        return slice(*np.searchsorted(self.token_P, [token_R[0], token_R[-1] + 1]).tolist())


@dataclass
class Loudness:
    """How many neighbours of each pool token a unit fires on."""

    pool: Pool
    near_PU: np.ndarray
    """uint16; at least `_LOUD` where the unit fires on the pool token itself."""

    @classmethod
    def empty(cls, pool: Pool, num_units: int) -> "Loudness":
        """Nothing fired yet."""
        return cls(pool, np.zeros((len(pool.token_P), num_units), np.uint16))

    def neighbourhood(self, token_R: np.ndarray, rollout_R: np.ndarray) -> "Neighbourhood":
        """Which rows of a shard stand near a pool token of their rollout."""
        mine = self.pool.within(token_R)
        centre = np.searchsorted(token_R, self.pool.token_P[mine])
        offset = np.arange(-self.pool.radius, self.pool.radius + 1)
        row = (centre[:, None] + offset).ravel()
        place = np.repeat(np.arange(mine.start, mine.stop), len(offset))
        inside = (row >= 0) & (row < len(token_R))
        inside[inside] = rollout_R[row[inside]] == np.repeat(rollout_R[centre], len(offset))[inside]
        weight = np.where(offset == 0, _LOUD, 1).astype(np.uint16)
        order = np.argsort(row[inside], kind="stable")
        return Neighbourhood(row[inside][order], place[inside][order], np.tile(weight, len(centre))[inside][order])

    def add(self, near: "Neighbourhood", rows: slice, events: Events) -> None:
        """Count the events of one block of the shard that `near` was made for."""
        pairs = slice(*np.searchsorted(near.row_M, [rows.start, rows.stop]).tolist())
        first, last = (
            np.searchsorted(events.row_N, near.row_M[pairs] - rows.start, side) for side in ("left", "right")
        )
        count = last - first
        cells = (np.repeat(near.place_M[pairs], count), events.unit_N[ranges(first, count)])
        np.add.at(self.near_PU, cells, np.repeat(near.weight_M[pairs], count))

    def merge(self, other: "Loudness") -> None:
        """Take in what other tokens did."""
        self.near_PU += other.near_PU

    def quietest(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(unit, token) of each unit's silent samples, at most `count` per unit in random order.

        Places with the fewest firing neighbours come first; where many are wholly quiet, the choice is uniform.
        """
        units, tokens = [], []
        for unit, near_P in enumerate(self.near_PU.T):
            silent = np.flatnonzero(near_P < _LOUD)
            draw = priorities(self.pool.token_P[silent], seed, _FIRST_UNIT_STREAM + unit)
            chosen = silent[np.lexsort((draw, near_P[silent]))[:count]]
            units.append(np.full(len(chosen), unit, np.int64))
            tokens.append(self.pool.token_P[chosen])
        return np.concatenate(units), np.concatenate(tokens)


@dataclass(frozen=True)
class Neighbourhood:
    """Pairs (row of a shard, pool token near it), sorted by row."""

    row_M: np.ndarray
    place_M: np.ndarray
    weight_M: np.ndarray
