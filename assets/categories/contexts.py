"""The strongest contexts of each unit as short escaped excerpts, for the assignment prompt."""

from pathlib import Path

from assets.contexts.artifact import top_contexts
from assets.dataset.artifact import S1kDataset
from resources.llm.prompts import escaped

PEAK_MARKS = ("«", "»")


def strongest(contexts: Path, dataset: Path, units: set[str], count: int, around: int) -> dict[str, str]:
    """Unit -> its `count` strongest contexts, `around` tokens on either side, the peak between « and »."""
    opened = S1kDataset.open(dataset)
    return {
        unit: "\n".join(_excerpt(opened, row["rollout_id"], row["position"], around) for row in rows)
        for unit, rows in top_contexts(contexts, count).items()
        if unit in units
    }


def _excerpt(dataset: S1kDataset, rollout: int, position: int, around: int) -> str:
    before, peak, after = map(escaped, dataset.around(rollout, position, around))
    return f"<context>{before}{PEAK_MARKS[0]}{peak}{PEAK_MARKS[1]}{after}</context>"
