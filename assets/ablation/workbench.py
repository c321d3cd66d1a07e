"""What every part is measured with: one model, its passages, and the edit that each part stands for.

Work is cut into shares that any number of processes finish in any order; the sums are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets.ablation.adapted import AdaptedModel
from assets.ablation.artifact import ROLLOUT_SCHEMA, ROLLOUTS
from assets.ablation.catalogue import Part
from assets.ablation.config import AblationConfig
from assets.ablation.edits import Edit
from assets.ablation.measure import Sums, effect, measure
from assets.ablation.passages import Passage, open_passages
from assets.ablation.share import sums_table, work_through
from assets.dataset.artifact import S1kDataset
from resources.components import Component
from resources.compute import ComputeConfig
from resources.progress import Progress


@dataclass(frozen=True)
class Workbench:
    """What every share of work is measured with."""

    model: AdaptedModel
    passages: Sequence[Passage]
    edit: Callable[[Part, int], Edit | None]
    """A part's edit on one passage; None where it changes nothing."""
    compute: ComputeConfig

    def measure_all(self, parts: Sequence[Part], slices: int, folder: Path, progress: Progress) -> list[list[Sums]]:
        """[part][passage]; parts of equal effect are measured once."""
        different, place = self._different(parts)
        slices = min(slices, len(different))
        jobs = [(which, first) for which in range(len(self.passages)) for first in range(slices)]
        names = [f"{self.passages[which].rollout_id:06d}-{first:02d}" for which, first in jobs]

        def make(i: int) -> pa.Table:
            which, first = jobs[i]
            edits = [self.edit(part, which) for part in different[first::slices]]
            return sums_table(measure(self.model, self.passages[which], edits, self.compute.tokens_per_batch))

        sums: list[list[Sums]] = [[] for _ in different]
        tables = work_through(names, make, folder, progress, f"ablating {folder.name}")
        for (_, first), table in zip(jobs, tables, strict=True):
            for i, row in zip(range(first, len(different), slices), table.to_pylist(), strict=True):
                sums[i].append(Sums(**row))
        return [sums[i] for i in place]

    def _different(self, parts: Sequence[Part]) -> tuple[list[Part], list[int]]:
        """Parts with different live components, in the order in which passes take them up, and where each stands."""
        keys = [(part.components & self.model.live, part.latent) for part in parts]
        first: dict[tuple[frozenset[Component], int | None], Part] = {}
        for key, part in zip(keys, parts, strict=True):
            first.setdefault(key, part)
        ordered = sorted(first, key=lambda key: min((c.layer for c in key[0]), default=0))
        place = {key: i for i, key in enumerate(ordered)}
        return [first[key] for key in ordered], [place[key] for key in keys]


def draw_passages(dataset: Path, ablation: AblationConfig) -> list[Passage]:
    """The passages on which parts are measured.

    Raises:
        BadInput: for a rollout shorter than 2 tokens.
    """
    return open_passages(
        S1kDataset.open(dataset),
        num_rollouts=ablation.num_rollouts,
        max_tokens=ablation.max_tokens,
        seed=ablation.seed,
        positions=ablation.positions,
    )


def row_of(part: Part, sums: Sequence[Sums]) -> dict[str, Any]:
    """A part's row of the table."""
    about = {"unit_kind": part.kind, "unit": part.unit, "layer": part.layer, "projection": part.projection}
    return {**about, "step": None, "n_components": len(part.components), **effect(sums)}


def write_rollouts(
    out: Path, parts: Sequence[Part], sums: Sequence[Sequence[Sums]], passages: Sequence[Passage]
) -> None:
    """The sums of every part on every passage, from which other means and errors can be made."""
    rows = [
        {
            "unit_kind": part.kind,
            "unit": part.unit,
            "rollout_id": passage.rollout_id,
            "kl_sum": s.kl,
            "ce_delta_sum": s.ce_delta,
            "n_tokens": s.num_tokens,
            "n_targets": s.num_targets,
        }
        for part, of_part in zip(parts, sums, strict=True)
        for passage, s in zip(passages, of_part, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=ROLLOUT_SCHEMA), out / ROLLOUTS)
