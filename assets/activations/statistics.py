"""Exact statistics of every column, percentiles too: a float16 has 65 536 values, so counting them loses nothing.

Counts add up, so any number of processes gives the same numbers. Shapes: B rows, C columns, V = 65 536 bit patterns.
"""

import numpy as np
import pyarrow as pa

from assets.activations.artifact import STATISTICS
from resources.shards import Shards

NUM_PATTERNS = 1 << 16
ROWS_AT_ONCE = 65_536
_PERCENTILES = {"p01": 0.01, "p50": 0.50, "p99": 0.99}


def count_values(shards: Shards) -> np.ndarray:
    """uint32[C, V]: how often each float16 bit pattern stands in each column; 262 kB per column."""
    counts_CV = np.zeros((len(shards.columns), NUM_PATTERNS), np.uint32)
    for batch in shards.batches(ROWS_AT_ONCE):
        bits_CB = np.ascontiguousarray(batch.state_BC.view(np.uint16).T)
        for column, bits_B in enumerate(bits_CB):
            counts_CV[column] += np.bincount(bits_B, minlength=NUM_PATTERNS).astype(np.uint32)
    return counts_CV


def summarise(columns: tuple[str, ...], counts_CV: np.ndarray) -> pa.Table:
    """The table of `STATISTICS` from value counts; every scalar is finite."""
    patterns_V = np.arange(NUM_PATTERNS, dtype=np.uint16).view(np.float16)
    finite = np.flatnonzero(np.isfinite(patterns_V))  # first: on ARM numpy warns of NaNs that it makes wider
    order = finite[np.argsort(patterns_V[finite], kind="stable")]
    values = patterns_V[order].astype(np.float64)
    rows = [
        {"column": column, **_summary(values, counts_V[order].astype(np.int64))}
        for column, counts_V in zip(columns, counts_CV, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=STATISTICS)


def _summary(values_V: np.ndarray, counts_V: np.ndarray) -> dict[str, float]:
    """One row of `STATISTICS` from ascending values and their counts."""
    kept = counts_V > 0
    values, counts = values_V[kept], counts_V[kept]
    n = int(counts.sum())
    mean = float(values @ counts) / n
    magnitude = np.argsort(np.abs(values), kind="stable")
    return {
        "mean": mean,
        "std": float(np.sqrt(((values - mean) ** 2) @ counts / n)),
        "min": float(values[0]),
        "max": float(values[-1]),
        **{name: _percentile(values, counts, share) for name, share in _PERCENTILES.items()},
        "abs_p99": _percentile(np.abs(values)[magnitude], counts[magnitude], 0.99),
        "n": n,
    }


def _percentile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    """The smallest value that at least `share` of the tokens do not exceed (inverted distribution function)."""
    cumulative = np.cumsum(counts)
    return float(values[np.searchsorted(cumulative, share * cumulative[-1])])
