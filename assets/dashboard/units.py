"""What the dashboard says of each unit: one row of the list, and the detail behind it.

Shapes: U units, C contexts of one unit, W tokens of a window.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets.dataset.artifact import S1kDataset

TOP_TOKENS = 8
"""Peak tokens listed per unit; the first three are searched."""
SAMPLES = ("top", "quantile", "silent")
LIST_COLUMNS = ("unit", "kind", "layer", "projection", "index", "polarity", "density", "max", "n_fired")


@dataclass(frozen=True)
class Sources:
    """The folders a unit's facts come from."""

    contexts: Path
    interpretations: Path
    scores: Path
    categories: Path


@dataclass(frozen=True)
class UnitTable:
    """One row per unit, in the order of `units.parquet`, and where its contexts lie in `contexts.parquet`."""

    columns: dict[str, list]
    """What the list shows, by name."""
    details: pa.Table
    """histogram and sum, by unit."""
    contexts: pa.Table
    """Sorted by unit, sample, rank."""
    bounds: Mapping[str, tuple[int, int]] = field(repr=False)
    """Unit -> its rows of `contexts`."""

    def __len__(self) -> int:
        return len(self.columns["unit"])


def read_units(sources: Sources) -> UnitTable:
    """Join contexts, explanations, scores and categories by unit; what a unit lacks is null."""
    units = pq.read_table(sources.contexts / "units.parquet")
    contexts = pq.read_table(sources.contexts / "contexts.parquet")
    rank = {sample: i for i, sample in enumerate(SAMPLES)}
    sample = pa.array([rank[name] for name in contexts["sample"].to_pylist()], pa.int8())
    contexts = contexts.append_column("sample_rank", sample).sort_by(
        [("unit", "ascending"), ("sample_rank", "ascending"), ("rank", "ascending")]
    )
    columns = {name: units[name].to_pylist() for name in LIST_COLUMNS}
    names = columns["unit"]
    for column, rows in _joined(sources).items():
        columns[column] = [rows.get(name) for name in names]
    columns["explanation"] = [text or "" for text in columns["explanation"]]
    return UnitTable(columns, units.select(["histogram", "sum"]), contexts, _bounds(contexts))


def _joined(sources: Sources) -> dict[str, dict[str, object]]:
    """Column -> unit -> value, from the rooms right of the contexts."""
    said = _by_unit(sources.interpretations / "interpretations.parquet")
    scored = _by_unit(sources.scores / "scores.parquet", ("method", "detection"))
    filed = _by_unit(sources.categories / "categories.parquet")
    wanted = {
        "explanation": (said, "explanation"),
        "explainer": (said, "explainer"),
        "label": (said, "label"),
        "status": (said, "status"),
        "reasoning": (said, "reasoning"),
        "score": (scored, "balanced_accuracy"),
        "score_low": (scored, "ci_low"),
        "score_high": (scored, "ci_high"),
        "category": (filed, "category"),
        "subcategory": (filed, "subcategory"),
    }
    return {column: {unit: row[name] for unit, row in rows.items()} for column, (rows, name) in wanted.items()}


def _by_unit(path: Path, only: tuple[str, str] | None = None) -> dict[str, dict]:
    rows = pq.read_table(path).to_pylist()
    return {row["unit"]: row for row in rows if only is None or row[only[0]] == only[1]}


def _bounds(contexts: pa.Table) -> dict[str, tuple[int, int]]:
    names = contexts["unit"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]]) if len(names) else np.zeros(0, int)
    ends = np.r_[starts[1:], len(names)]
    return {str(names[a]): (int(a), int(b)) for a, b in zip(starts, ends, strict=True)}


class Texts:
    """Token texts of rollouts, cut once per rollout."""

    def __init__(self, dataset: S1kDataset) -> None:
        self._dataset = dataset
        self._pieces: dict[int, list[str]] = {}

    def of(self, rollout: int) -> list[str]:
        """The rollout's tokens as text; joined they are the rollout."""
        if rollout not in self._pieces:
            text = self._dataset.text(rollout)
            self._pieces[rollout] = [text[a:b] for a, b in self._dataset.spans(rollout).tolist()]
        return self._pieces[rollout]


def contexts_of(table: UnitTable, unit: str, texts: Texts) -> list[dict]:
    """The unit's contexts in rank order, with the text of every token."""
    first, end = table.bounds.get(unit, (0, 0))
    return list(_contexts(table.contexts.slice(first, end - first), texts))


def _contexts(rows: pa.Table, texts: Texts) -> Iterator[dict]:
    names = ("sample", "rollout_id", "position", "value", "start", "values")
    for sample, rollout, position, value, start, values in zip(
        *(rows[name].to_pylist() for name in names), strict=True
    ):
        yield {
            "sample": sample,
            "rollout": rollout,
            "position": position,
            "value": _short(value),
            "start": start,
            "pieces": texts.of(rollout)[start : start + len(values)],
            "values": [_short(v) for v in values],
        }


def _short(value: float) -> float:
    """Four significant digits are what a person reads; zeros stay one character."""
    return float(f"{value:.4g}") if value else 0


def top_tokens(contexts: list[dict]) -> list[tuple[str, int]]:
    """Texts of the peak tokens of the top contexts, most frequent first."""
    peaks = Counter(one["pieces"][one["position"] - one["start"]] for one in contexts if one["sample"] == "top")
    return sorted(peaks.items(), key=lambda item: (-item[1], item[0]))[:TOP_TOKENS]
