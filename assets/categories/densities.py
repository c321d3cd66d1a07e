"""How much activation each category holds (figure 2), and how classes differ between kinds of unit (figure 1)."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from assets.categories.artifact import (
    CLASSES_FILE,
    CLASSES_SCHEMA,
    DENSITIES_FILE,
    DENSITIES_SCHEMA,
    Categories,
)
from assets.categories.charts import class_chart, density_chart
from assets.categories.comparison import chi_squared, class_shares, count_labels
from assets.categories.config import CategoriesConfig
from assets.categories.sums import subset_sums
from assets.contexts.artifact import per_unit
from assets.interpretations.artifact import Interpretations
from resources.charts import save_chart
from resources.progress import Progress


class DensityMetrics(BaseModel, frozen=True):
    """What the UI shows of a run."""

    rollouts: str
    """How many rollouts the activations were summed over, or `all`."""
    densities: list[dict[str, str | int | float]]
    classes: list[dict[str, str | int | float]]
    class_test: list[dict[str, str | float]]
    """Chi² of the class shares, each two kinds."""
    category_test: list[dict[str, str | float]]
    """Chi² of the category counts, each two kinds."""


def measure(
    *,
    categories: CategoriesConfig,
    feature_categories: Path,
    interpretations: Path,
    max_activating_contexts: Path,
    activation_shards: Path,
    neuron_shards: Path,
    batchtopk_sae: Path,
    out: Path,
    progress: Progress,
) -> DensityMetrics:
    """Write `densities.parquet`, `classes.parquet` and the charts of figures 1 and 2."""
    assigned = Categories.open(feature_categories).table().to_pylist()
    explained = Interpretations.open(interpretations).rows()
    if categories.rollouts is None:
        sums = per_unit(max_activating_contexts, "sum")
    else:
        units = [row["unit"] for row in assigned]
        sums = subset_sums(
            units, categories, max_activating_contexts, activation_shards, neuron_shards, batchtopk_sae, progress
        )
    densities = density_rows(assigned, sums)
    classes = class_shares(explained)
    pq.write_table(pa.Table.from_pylist(densities, schema=DENSITIES_SCHEMA), out / DENSITIES_FILE)
    pq.write_table(pa.Table.from_pylist(classes, schema=CLASSES_SCHEMA), out / CLASSES_FILE)
    progress.say("drawing figures 1 and 2")
    save_chart(class_chart(classes), out, "figure_1_classes")
    for kind in sorted({row["kind"] for row in densities}):
        save_chart(density_chart(densities, kind), out, f"figure_2_{kind}")
    kinds = sorted({row["kind"] for row in explained})
    labels = {kind: count_labels(explained, kind) for kind in kinds}
    return DensityMetrics(
        rollouts="all" if categories.rollouts is None else str(categories.rollouts),
        densities=densities,
        classes=classes,
        class_test=_tests(labels),
        category_test=_tests(_category_counts(assigned)),
    )


def density_rows(assigned: list[dict[str, Any]], sums: dict[str, float]) -> list[dict[str, Any]]:
    """Sum of activations per kind and entry, over the sum of all categorized units of the kind."""
    rows = []
    for kind in sorted({row["kind"] for row in assigned}):
        mine = [row for row in assigned if row["kind"] == kind and row["string_id"]]
        total = sum(sums[row["unit"]] for row in mine)
        groups: dict[tuple[str, str, str], list[dict]] = {}
        for row in mine:
            groups.setdefault((row["string_id"], row["category"], row["subcategory"]), []).append(row)
        for (entry_id, category, subcategory), group in sorted(groups.items(), key=lambda each: _order(each[0][0])):
            density = sum(sums[row["unit"]] for row in group)
            rows.append(
                {"kind": kind, "category": category, "subcategory": subcategory, "string_id": entry_id,
                 "units": len(group), "unit_share": len(group) / len(mine),
                 "density": density, "share": density / total if total else 0.0}
            )  # fmt: skip
    return rows


def _order(entry_id: str) -> list[tuple[int, str]]:
    """Sorts 2.10 after 2.9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in entry_id.split(".")]


def _category_counts(assigned: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    names = sorted({row["category"] for row in assigned})
    kinds = sorted({row["kind"] for row in assigned})
    return {
        kind: np.array([sum(r["kind"] == kind and r["category"] == name for r in assigned) for name in names])
        for kind in kinds
    }


def _tests(counts: dict[str, np.ndarray]) -> list[dict[str, str | float]]:
    tests: list[dict[str, str | float]] = []
    for first, second in combinations(sorted(counts), 2):
        found = chi_squared(counts[first], counts[second])
        if found is not None:
            tests.append({"first": first, "second": second, **found})
    return tests
