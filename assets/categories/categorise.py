"""Put every explained unit into one entry of a taxonomy."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from assets.categories.artifact import (
    CATEGORIES_FILE,
    CATEGORIES_SCHEMA,
    TAXONOMY_FILE,
    category_row,
)
from assets.categories.config import CategoriesConfig
from assets.categories.llm import categorise_units
from assets.categories.statistical import TAXONOMY, string_id
from assets.interpretations.artifact import Interpretations, Predicate
from assets.interpretations.config import STATISTICAL
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.llm.ask import Bill
from resources.progress import Progress


class CategoriseMetrics(BaseModel, frozen=True):
    """What the UI shows of a run."""

    categories: int
    subcategories: int
    units: int
    uncategorized: int
    not_explained: int
    """Units without an explanation; they are in no category and in no share."""
    counts: list[dict[str, str | int]]
    """Units per kind and entry."""
    requests: int
    cached: int
    cost_usd: float


def categorise(
    *,
    categories: CategoriesConfig,
    s1k_dataset: Path,
    max_activating_contexts: Path,
    interpretations: Path,
    out: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> CategoriseMetrics:
    """Write `categories.parquet` and `taxonomy.json`.

    Raises:
        BadInput: when no unit is explained.
    """
    everything = Interpretations.open(interpretations).rows()
    rows = [row for row in everything if row["kind"] in categories.kinds]
    explained = [row for row in rows if _is_explained(row, categories.provider)]
    if not explained:
        raise BadInput(
            f"no unit of kind {' or '.join(categories.kinds)} in {interpretations} has an explanation, so there is "
            "nothing to categorise"
        )
    bill = Bill()
    if categories.provider == STATISTICAL:
        taxonomy, found = TAXONOMY, [_assigned(row) for row in explained]
    else:
        usable = [row for row in everything if _is_explained(row, categories.provider)]
        taxonomy, found, bill = categorise_units(
            categories, compute, s1k_dataset, max_activating_contexts, usable, progress
        )
    pq.write_table(pa.Table.from_pylist(found, schema=CATEGORIES_SCHEMA), out / CATEGORIES_FILE)
    (out / TAXONOMY_FILE).write_text(taxonomy.model_dump_json(indent=1), encoding="utf-8")
    return CategoriseMetrics(
        categories=len(taxonomy.categories),
        subcategories=sum(len(category.subcategories) for category in taxonomy.categories),
        units=len(found),
        uncategorized=sum(not row["string_id"] for row in found),
        not_explained=len(rows) - len(explained),
        counts=_counts(found),
        **asdict(bill),
    )


def _is_explained(row: dict, provider: str) -> bool:
    return bool(row["statistical_explanation"]) if provider == STATISTICAL else row["status"] == "ok"


def _assigned(row: dict) -> dict:
    predicate = Predicate.model_validate_json(row["predicate"]) if row["predicate"] else None
    return category_row(row, TAXONOMY, string_id(predicate, row["statistical_label"]), STATISTICAL, "")


def _counts(rows: list[dict]) -> list[dict[str, str | int]]:
    counted = Counter((row["kind"], row["category"], row["subcategory"]) for row in rows)
    return [
        {"kind": kind, "category": category, "subcategory": subcategory, "units": units}
        for (kind, category, subcategory), units in sorted(counted.items())
    ]
