"""Which contexts a unit gets, chosen from its tally: the strongest, the quantiles of its firing, the silent ones.

Shapes: n contexts, U units.
"""

from dataclasses import dataclass, fields

import numpy as np

from assets.contexts.ranking import Entries, ranges
from assets.contexts.silence import Loudness
from assets.contexts.tally import Tally


@dataclass(frozen=True)
class Requests:
    """Contexts to be read, sorted by unit, sample and rank."""

    unit_n: np.ndarray
    sample_n: np.ndarray
    """Places in `artifact.SAMPLES`."""
    rank_n: np.ndarray
    token_n: np.ndarray
    value_n: np.ndarray

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> "Requests":
        """From the arrays of a file, which may hold others too."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def choose(tally: Tally, loudness: Loudness) -> Requests:
    """All contexts of all units of a source."""
    config = tally.config
    top = tally.top.best()
    spread = spread_over_quantiles(tally.sample.best(), config.quantile_samples)
    unit_s, token_s = loudness.quietest(config.silent_samples, config.seed)
    silent = Entries(unit_s, np.zeros(len(unit_s), np.float32), token_s, np.zeros(len(unit_s), np.float32))
    parts = (top, spread, silent)  # as in SAMPLES
    sample_n = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    unit_n = np.concatenate([part.unit_N for part in parts])
    order = np.lexsort((sample_n, unit_n))
    return Requests(
        unit_n[order],
        sample_n[order],
        np.concatenate([part.place() for part in parts])[order].astype(np.int32),
        np.concatenate([part.token_N for part in parts])[order],
        np.concatenate([part.value_N for part in parts])[order],
    )


def spread_over_quantiles(sample: Entries, count: int) -> Entries:
    """Of each unit's random sample, the middle entry of each of `count` equal shares by value, strongest first."""
    ordered = sample.take(np.lexsort((sample.token_N, -sample.value_N, sample.unit_N)))
    sizes_U = np.bincount(ordered.unit_N)
    first_U = np.cumsum(sizes_U) - sizes_U
    kept_U = np.minimum(sizes_U, count)
    unit_n = np.repeat(np.arange(len(sizes_U)), kept_U)
    share_n = ranges(np.zeros_like(kept_U), kept_U)
    middle_n = (2 * share_n + 1) * sizes_U[unit_n] // (2 * np.maximum(kept_U[unit_n], 1))
    return ordered.take(first_U[unit_n] + middle_n)
