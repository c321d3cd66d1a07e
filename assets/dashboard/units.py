"""What the dashboard says of each unit: one row of the list, and its contexts as flat columns.

Shapes: U units, C contexts, W tokens of all their windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets.categories.artifact import CATEGORIES_FILE
from assets.contexts.artifact import CONTEXTS_FILE, SAMPLES, UNITS_FILE
from assets.dashboard.config import DashboardConfig
from assets.interpretations.artifact import INTERPRETATIONS_FILE, Scores

LIST_COLUMNS = ("unit", "kind", "layer", "projection", "index", "polarity", "density", "max", "n_fired")
LARGEST = float(np.finfo(np.float16).max)
_CONTEXT_COLUMNS = ["unit", "sample", "rank", "rollout_id", "position", "value", "start", "values"]


@dataclass(frozen=True)
class Sources:
    """The folders a unit's facts come from."""

    contexts: Path
    interpretations: Path
    scores: Path
    categories: Path


@dataclass(frozen=True)
class ContextTable:
    """Contexts of all units, a unit's rows together, by sample and rank."""

    sample_C: np.ndarray
    """Place in `SAMPLES`."""
    rollout_C: np.ndarray
    position_C: np.ndarray
    value_C: np.ndarray
    start_C: np.ndarray
    offset_C: np.ndarray
    """[C + 1]: where each window begins in `values_W`."""
    values_W: np.ndarray
    """float16, in the unit's own polarity: exact for directions and neurons, three digits for latents."""
    bounds: Mapping[str, tuple[int, int]] = field(repr=False)
    """Unit -> its rows."""

    def __len__(self) -> int:
        return len(self.sample_C)

    def of(self, unit: str) -> tuple[int, int]:
        """A unit's rows: the first, and one past the last."""
        return self.bounds.get(unit, (0, 0))

    def strongest(self, unit: str) -> np.ndarray:
        """Rows of a unit's strongest contexts, by rank."""
        first, end = self.of(unit)
        return first + np.flatnonzero(self.sample_C[first:end] == SAMPLES.index("top"))


@dataclass(frozen=True)
class UnitTable:
    """One row per unit, in the order of `units.parquet`."""

    columns: dict[str, list]
    """What the list shows, by name."""
    details: pa.Table
    """threshold, histogram and sum, by unit."""
    contexts: ContextTable

    def __len__(self) -> int:
        return len(self.columns["unit"])


def read_units(sources: Sources, config: DashboardConfig) -> UnitTable:
    """Join contexts, explanations, scores and categories by unit; what a unit lacks is null."""
    units = pq.read_table(sources.contexts / UNITS_FILE)
    columns = {name: units[name].to_pylist() for name in LIST_COLUMNS}
    names = columns["unit"]
    for column, rows in _joined(sources).items():
        columns[column] = [rows.get(name) for name in names]
    columns["explanation"] = [text or "" for text in columns["explanation"]]
    contexts = read_contexts(sources.contexts / CONTEXTS_FILE, config)
    return UnitTable(columns, units.select(["threshold", "histogram", "sum"]), contexts)


def _joined(sources: Sources) -> dict[str, dict[str, object]]:
    """Column -> unit -> value, from the rooms right of the contexts."""
    said = _by_unit(sources.interpretations / INTERPRETATIONS_FILE)
    explainers = {unit: row["explainer"] for unit, row in said.items()}
    scores = Scores.open(sources.scores)
    scored, fuzzed, picked = (scores.of(method, explainers) for method in ("detection", "fuzzing", "intruder"))
    filed = _by_unit(sources.categories / CATEGORIES_FILE)
    wanted = {
        "explanation": (said, "explanation"),
        "explainer": (said, "explainer"),
        "label": (said, "label"),
        "status": (said, "status"),
        "reasoning": (said, "reasoning"),
        "score": (scored, "balanced_accuracy"),
        "score_low": (scored, "ci_low"),
        "score_high": (scored, "ci_high"),
        "typical": (scored, "sensitivity_typical"),
        "fuzzing": (fuzzed, "balanced_accuracy"),
        "intruder": (picked, "balanced_accuracy"),
        "category": (filed, "category"),
        "subcategory": (filed, "subcategory"),
    }
    return {column: {unit: row[name] for unit, row in rows.items()} for column, (rows, name) in wanted.items()}


def _by_unit(path: Path) -> dict[str, dict]:
    return {row["unit"]: row for row in pq.read_table(path).to_pylist()}


def read_contexts(path: Path, config: DashboardConfig) -> ContextTable:
    """The shown contexts of every unit; a row group at a time, so memory is that of what is shown."""
    counts = _counts(path)
    file = pq.ParquetFile(path, read_dictionary=["unit", "sample"])
    parts: list[pa.Table] = []
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, columns=_CONTEXT_COLUMNS)
        parts.append(rows.filter(pa.array(_shown(rows, counts, config))))
    rows = pa.concat_tables(parts).combine_chunks()
    lists = rows["values"].combine_chunks()
    length_C = lists.value_lengths().to_numpy(zero_copy_only=False)
    return ContextTable(
        sample_C=_samples(rows),
        rollout_C=rows["rollout_id"].to_numpy(),
        position_C=rows["position"].to_numpy(),
        value_C=rows["value"].to_numpy(),
        start_C=rows["start"].to_numpy(),
        offset_C=np.concatenate([[0], np.cumsum(length_C, dtype=np.int64)]),
        values_W=np.clip(lists.flatten().to_numpy(), -LARGEST, LARGEST).astype(np.float16),
        bounds=_bounds(rows),
    )


def _counts(path: Path) -> dict[tuple[str, str], int]:
    """(unit, sample) -> how many contexts there are."""
    columns = ["unit", "sample"]
    read = pq.read_table(path, columns=columns, read_dictionary=columns).unify_dictionaries()
    found = read.group_by(columns).aggregate([([], "count_all")])
    units, samples = (found[name].to_pylist() for name in columns)
    return dict(zip(zip(units, samples, strict=True), found["count_all"].to_pylist(), strict=True))


def _shown(rows: pa.Table, counts: Mapping[tuple[str, str], int], config: DashboardConfig) -> np.ndarray:
    """bool [C]: the first of the strongest, and of each other sample as many as may be, evenly spread."""
    rank_C, sample_C = rows["rank"].to_numpy(), _samples(rows)
    names, unit_C = _encoded(rows, "unit")
    limit_C = np.array([_most(name, config) for name in names])[unit_C, sample_C]
    count_C = np.array([[counts.get((name, sample), 0) for sample in SAMPLES] for name in names])[unit_C, sample_C]
    strongest_C = (sample_C == SAMPLES.index("top")) & (rank_C < limit_C)
    spread_C = (sample_C != SAMPLES.index("top")) & (rank_C.astype(np.int64) * limit_C % count_C < limit_C)
    return strongest_C | spread_C


def _most(unit: str, config: DashboardConfig) -> tuple[int, int, int]:
    """Contexts shown of each sample."""
    if unit.startswith("neuron:"):
        return config.neuron_contexts, config.neuron_contexts // 2, config.neuron_contexts // 2
    return config.top_contexts, config.other_contexts, config.other_contexts


def _encoded(rows: pa.Table, name: str) -> tuple[list[str], np.ndarray]:
    """The distinct values of a text column, and the place of each row's among them."""
    column = rows[name].unify_dictionaries().combine_chunks()
    return column.dictionary.to_pylist(), column.indices.to_numpy(zero_copy_only=False)


def _samples(rows: pa.Table) -> np.ndarray:
    names, code_C = _encoded(rows, "sample")
    return np.array([SAMPLES.index(name) for name in names], np.uint8)[code_C]


def _bounds(rows: pa.Table) -> dict[str, tuple[int, int]]:
    names, unit_C = _encoded(rows, "unit")
    first = np.flatnonzero(np.diff(unit_C, prepend=-1)).tolist()
    ends = [*first[1:], len(unit_C)]
    return {names[unit_C[a]]: (a, b) for a, b in zip(first, ends, strict=True)}
