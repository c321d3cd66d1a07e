"""The strongest contexts of each unit as short escaped excerpts, for the assignment prompt."""

from pathlib import Path

import pyarrow.parquet as pq

from assets.contexts.artifact import CONTEXTS_FILE
from assets.dataset.artifact import S1kDataset
from resources.llm.prompts import escaped

PEAK_MARKS = ("«", "»")


def strongest(contexts: Path, dataset: Path, units: set[str], count: int, around: int) -> dict[str, str]:
    """Unit -> its `count` strongest contexts, `around` tokens on either side, the peak between « and »."""
    if not count:
        return {}
    columns = ["unit", "sample", "rank", "rollout_id", "position"]
    wanted = [("sample", "=", "top"), ("rank", "<", count)]
    rows = pq.read_table(contexts / CONTEXTS_FILE, columns=columns, filters=wanted).to_pylist()
    opened = S1kDataset.open(dataset)
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["unit"] in units:
            found.setdefault(row["unit"], []).append(_excerpt(opened, row["rollout_id"], row["position"], around))
    return {unit: "\n".join(f"<context>{text}</context>" for text in texts) for unit, texts in found.items()}


def _excerpt(dataset: S1kDataset, rollout: int, position: int, around: int) -> str:
    before, peak, after = map(escaped, dataset.around(rollout, position, around))
    return before + PEAK_MARKS[0] + peak + PEAK_MARKS[1] + after
