"""A unit's evidence, split by rollout: peaks to explain it from, and firing and quiet tokens that stay unseen.

Shapes: n peaks, q quiet tokens; positions are flat indices into the corpus.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets.contexts.artifact import CONTEXTS_FILE, SAMPLES, per_unit
from assets.interpretations.config import InterpretationsConfig
from assets.interpretations.corpus import Corpus

HALF_A, HALF_B, HELD_OUT = 0, 1, 2
"""Parts of the split by rollout; explainers see both halves and never the third."""
QUIET_LIMIT = 4000
"""Quiet tokens kept per unit and part; more are thinned evenly."""
_COLUMNS = ["unit", "sample", "rank", "rollout_id", "position", "value", "start", "values"]


@dataclass(frozen=True)
class Window:
    """One context: the tokens from `start`, with the unit's activation at each."""

    rollout_id: int
    position: int
    value: float
    start: int
    values: np.ndarray
    sample: str
    held_out: bool
    typical: bool = False
    """Drawn from the quantiles of the firing range, whether or not it is also one of the strongest."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one unit. `peak_*` are aligned, strongest first; so are `quiet_*`."""

    unit: str
    kind: str
    peak_n: np.ndarray
    value_n: np.ndarray
    part_n: np.ndarray
    top_n: np.ndarray
    """Whether the peak is one of the strongest (else it is from a quantile of the firing range)."""
    typical_n: np.ndarray
    """Whether the peak was drawn from a quantile, whether or not it is also one of the strongest."""
    quiet_q: np.ndarray
    quiet_part_q: np.ndarray
    windows: tuple[Window, ...]
    """The contexts behind the peaks in their order, then the silent ones."""

    def shown(self, limit: int) -> np.ndarray:
        """Indices of the strongest peaks outside the held-out rollouts, at most `limit`."""
        return np.flatnonzero(self.top_n & (self.part_n != HELD_OUT))[:limit]


def draw_parts(rollouts: int, held_out_share: float, seed: int) -> np.ndarray:
    """The part of every rollout id below `rollouts`; a rollout's part does not depend on how many there are."""
    draws = np.random.default_rng([seed, 2]).random(rollouts)
    halves = np.where(draws < (1 + held_out_share) / 2, HALF_A, HALF_B)
    return np.where(draws < held_out_share, HELD_OUT, halves)


def read_evidence(contexts: Path, corpus: Corpus, knobs: InterpretationsConfig) -> Iterator[Evidence]:
    """Every unit that has contexts and a chosen kind, one at a time; memory holds one record batch.

    A unit's contexts stand together in the file.
    """
    kinds = per_unit(contexts, "kind")
    part_R = draw_parts(max(corpus.first) + 1, knobs.held_out_share, knobs.seed)
    for unit, table in _tables(contexts / CONTEXTS_FILE):
        if kinds.get(unit) in knobs.kinds:
            yield _evidence(unit, kinds[unit], table, corpus, part_R, knobs.contexts_per_rollout)


def _tables(path: Path) -> Iterator[tuple[str, pa.Table]]:
    """(unit, its rows), joined over record batches."""
    name, parts = "", []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=8192, columns=_COLUMNS):
            names = batch["unit"].to_pylist()
            units = np.array(names, dtype=object)
            cuts = [0, *(np.flatnonzero(units[1:] != units[:-1]) + 1).tolist(), len(units)]
            for start, end in pairwise(cuts):
                if names[start] != name and parts:
                    yield name, pa.Table.from_batches(parts)
                    parts = []
                name = names[start]
                parts.append(batch.slice(start, end - start))
    if parts:
        yield name, pa.Table.from_batches(parts)


def _evidence(unit: str, kind: str, table: pa.Table, corpus: Corpus, part_R: np.ndarray, per_rollout: int) -> Evidence:
    table = table.combine_chunks()
    sample = np.array(table["sample"].to_pylist())
    rollout, position = table["rollout_id"].to_numpy(), table["position"].to_numpy()
    start, value = table["start"].to_numpy(), table["value"].to_numpy()
    lists = table["values"].combine_chunks()
    flat_values = lists.flatten().to_numpy(zero_copy_only=False)
    edges = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    order = np.argsort(table["rank"].to_numpy(), kind="stable")
    strongest, spread, silent = (order[sample[order] == name].tolist() for name in SAMPLES)
    # Those that are drawn stand for all tokens only while none is left out for the strongest of its rollout.
    peaks = _distinct(_capped(strongest, rollout, per_rollout) + spread, rollout, position)
    drawn = {(rollout[row], position[row]) for row in spread}
    first = corpus.flat(rollout, start)
    quiet = _quiet(first, edges, flat_values)
    quiet_part = part_R[_rollout_of(quiet, corpus)]
    kept = _thinned(quiet_part)
    windows = tuple(
        Window(
            int(rollout[row]), int(position[row]), float(value[row]), int(start[row]),
            flat_values[edges[row] : edges[row + 1]], str(sample[row]), bool(part_R[rollout[row]] == HELD_OUT),
            (rollout[row], position[row]) in drawn,
        )
        for row in [*peaks, *silent]
    )  # fmt: skip
    return Evidence(
        unit,
        kind,
        (first - start + position)[peaks],
        value[peaks].astype(np.float64),
        part_R[rollout[peaks]],
        sample[peaks] == "top",
        np.array([window.typical for window in windows[: len(peaks)]], dtype=bool),
        quiet[kept],
        quiet_part[kept],
        windows,
    )


def _distinct(rows: list[int], rollout: np.ndarray, position: np.ndarray) -> list[int]:
    """The rows in order, without those of a token seen before: a quantile may draw one of the strongest."""
    first: dict[tuple[int, int], int] = {}
    for row in rows:
        first.setdefault((int(rollout[row]), int(position[row])), row)
    return list(first.values())


def _capped(rows: list[int], rollout: np.ndarray, limit: int) -> list[int]:
    """The rows in order, without those past `limit` in their rollout."""
    seen: dict[int, int] = {}
    kept = []
    for row in rows:
        rollout_id = int(rollout[row])
        seen[rollout_id] = seen.get(rollout_id, 0) + 1
        if seen[rollout_id] <= limit:
            kept.append(row)
    return kept


def _quiet(first: np.ndarray, edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Distinct flat indices of window tokens at which the unit does not fire."""
    flat = np.repeat(first - edges[:-1], np.diff(edges)) + np.arange(len(values))
    return np.unique(flat[values <= 0])


def _rollout_of(flat: np.ndarray, corpus: Corpus) -> np.ndarray:
    ids = np.fromiter(corpus.first, dtype=np.int64)
    starts = np.fromiter(corpus.first.values(), dtype=np.int64)
    return ids[np.searchsorted(starts, flat, "right") - 1]


def _thinned(part: np.ndarray) -> np.ndarray:
    """Indices that keep at most `QUIET_LIMIT` of each part, evenly spread."""
    rows = [np.flatnonzero(part == each) for each in (HALF_A, HALF_B, HELD_OUT)]
    return np.sort(np.concatenate([each[:: -(-len(each) // QUIET_LIMIT) or 1] for each in rows]))
