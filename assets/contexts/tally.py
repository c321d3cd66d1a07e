"""What one pass keeps of every unit: counts, sums, its strongest tokens and a random sample of its firing tokens.

Tallies of parts of the tokens merge into the tally of all. Shapes: N events, R rows (tokens), U units.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from assets.contexts.config import ContextsConfig
from assets.contexts.ranking import ROLLOUT_SHIFT, Entries, Ranking
from resources.parts import noted

OVERSAMPLING = 2
"""Firing tokens sampled per quantile context; the quantiles of the sample stand for those of all firing tokens."""
_PRIORITY_BITS = 24
"""A float32 holds every integer of so many bits; ties between tokens are broken by the token."""


@dataclass(frozen=True)
class Events:
    """Where units fire, sorted by row."""

    row_N: np.ndarray
    """int64: row of the block's tokens."""
    unit_N: np.ndarray
    """int64."""
    value_N: np.ndarray
    """float32, above the unit's threshold."""


def tokens_of(rollout_id_R: np.ndarray, position_R: np.ndarray) -> np.ndarray:
    """int64[R]: one number per token that orders as (rollout, position) does."""
    return (rollout_id_R.astype(np.int64) << ROLLOUT_SHIFT) | position_R.astype(np.int64)


def priorities(token_R: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """float32[R]: a random number per token that depends on nothing but the token, seed and stream (splitmix64)."""
    offset = np.random.default_rng([seed, stream]).integers(1 << 63, dtype=np.uint64)
    x = (token_R.astype(np.uint64) + offset) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    # Its last step, x ^ (x >> 31), changes none of the leading bits.
    return (x >> np.uint64(64 - _PRIORITY_BITS)).astype(np.float32)


@dataclass
class Tally:
    """Everything one pass learns about `num_units` units."""

    num_units: int
    config: ContextsConfig
    num_tokens: int = 0
    count_U: np.ndarray = field(init=False)
    """int64: tokens on which the unit fires."""
    sum_U: np.ndarray = field(init=False)
    """float64."""
    top: Ranking = field(init=False)
    """By value."""
    sample: Ranking = field(init=False)
    """By a random priority of the token: uniform over the unit's firing tokens, and mergeable."""

    def __post_init__(self) -> None:
        self.count_U = np.zeros(self.num_units, np.int64)
        self.sum_U = np.zeros(self.num_units, np.float64)
        self.top = Ranking(self.num_units, self.config.k, self.config.cap_per_rollout)
        self.sample = Ranking(self.num_units, max(1, OVERSAMPLING * self.config.quantile_samples))

    def add(self, events: Events, token_R: np.ndarray, priority_R: np.ndarray) -> None:
        """One block of tokens; no token may come twice."""
        self.num_tokens += len(token_R)
        self.count_U += np.bincount(events.unit_N, minlength=self.num_units)
        self.sum_U += np.bincount(events.unit_N, weights=events.value_N, minlength=self.num_units)
        self._keep(self.top, events, events.value_N, token_R)
        self._keep(self.sample, events, priority_R[events.row_N], token_R)

    def _keep(self, ranking: Ranking, events: Events, score_N: np.ndarray, token_R: np.ndarray) -> None:
        index = np.flatnonzero(score_N >= ranking.bar_U[events.unit_N])
        ranking.keep(Entries(events.unit_N[index], score_N[index], token_R[events.row_N[index]], events.value_N[index]))

    def merge(self, other: "Tally") -> None:
        """Take in the tally of other tokens."""
        self.num_tokens += other.num_tokens
        self.count_U += other.count_U
        self.sum_U += other.sum_U
        self.top.offer(other.top.best())
        self.sample.offer(other.sample.best())

    def save(self, path: Path) -> None:
        """Write a file that appears only when it is whole."""
        arrays = {"num_tokens": np.array(self.num_tokens), "count": self.count_U, "sum": self.sum_U}
        for name, ranking in (("top", self.top), ("sample", self.sample)):
            best = ranking.best()
            parts = {"unit": best.unit_N, "score": best.score_N, "token": best.token_N, "value": best.value_N}
            arrays |= {f"{name}_{part}": array for part, array in parts.items()}
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path, num_units: int, config: ContextsConfig) -> "Tally":
        """What `save` wrote."""
        arrays = load_arrays(path)
        tally = cls(num_units, config, int(arrays["num_tokens"]))
        tally.count_U, tally.sum_U = arrays["count"], arrays["sum"]
        for name, ranking in (("top", tally.top), ("sample", tally.sample)):
            ranking.keep(Entries(*(arrays[f"{name}_{part}"] for part in ("unit", "score", "token", "value"))))
        return tally


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to one .npz that appears only when it is whole."""
    with noted(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
