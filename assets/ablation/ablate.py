"""`ablation_kl`: the KL of every part of the adapter, as a tidy table and figure 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, JsonValue

from assets.ablation.activity import Firings, column_statistic, firings, heaviest, removal_of_latent
from assets.ablation.adapted import AdaptedModel
from assets.ablation.artifact import (
    ABLATION,
    ABLATION_SCHEMA,
    INTERACTION_SCHEMA,
    INTERACTIONS,
    ROLLOUT_SCHEMA,
    ROLLOUTS,
)
from assets.ablation.catalogue import Part, catalogue, greedy_candidates, latent_parts, removal
from assets.ablation.config import AblationConfig
from assets.ablation.edits import Edit
from assets.ablation.figures import save_ablation_figures
from assets.ablation.measure import Sums, measure
from assets.ablation.passages import Passage, open_passages
from assets.ablation.pool import effect, interactions
from assets.ablation.share import sums_table, work_through
from assets.dataset.artifact import S1kDataset
from assets.sae.artifact import Sae
from resources.components import Component
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress
from resources.ranks import Rank
from resources.shards import Shards

SHOWN = 10
"""Strongest components in the metrics."""


class AblationMetrics(BaseModel):
    """What the UI shows."""

    model_config = ConfigDict(frozen=True)

    n_units: int
    n_rollouts: int
    n_tokens: int
    kl_all: float
    """Nats per token between full adapter and base model (zero ablation)."""
    kl_attention: float | None
    kl_mlp: float | None
    strongest: list[dict[str, JsonValue]]
    """Components by KL."""
    projections: list[dict[str, JsonValue]]
    greedy: list[dict[str, JsonValue]]


@dataclass(frozen=True)
class Bench:
    """What every shard is measured with."""

    model: AdaptedModel
    passages: Sequence[Passage]
    means: dict[Component, float] | None
    """What an ablated activation becomes; None: 0."""
    sae: Sae | None
    firings: Sequence[Firings]
    """Per passage; empty without an SAE."""
    tokens_per_batch: int

    def edit(self, part: Part, which: int) -> Edit | None:
        """A part's edit on one passage; None where it changes nothing, so that its KL is exactly 0."""
        if part.latent is None or self.sae is None:
            return removal(part.unit, part.components & self.model.live, self.means)
        passage, firing = self.passages[which], self.firings[which]
        return removal_of_latent(self.sae, part.latent, firing, self.model.live, len(passage.ids_T), self.model.device)

    def measure(self, which: int, parts: Sequence[Part]) -> list[Sums]:
        """Sums of parts on one passage."""
        passage = self.passages[which]
        edits = [self.edit(part, which) for part in parts]
        found = iter(measure(self.model, passage, [e for e in edits if e is not None], self.tokens_per_batch))
        targets = int((passage.target_P >= 0).sum())
        nothing = Sums(0.0, 0.0, len(passage.scored_P), targets)
        return [nothing if edit is None else next(found) for edit in edits]


def ablate(
    *,
    model: ModelConfig,
    ablation: AblationConfig,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    activation_shards: Path,
    batchtopk_sae: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> AblationMetrics:
    """Measure every part on every drawn rollout (paper, figure 3).

    Raises:
        BadInput: for an unknown component, a rollout shorter than 2 tokens, logits that are not finite, negative KL.
    """
    passages = open_passages(
        S1kDataset.open(s1k_dataset),
        num_rollouts=ablation.num_rollouts,
        max_tokens=ablation.max_tokens,
        seed=ablation.seed,
        positions=ablation.positions,
    )
    adapted = AdaptedModel.load(model, lora_checkpoint, Rank.here().device(compute.device))
    every = adapted.adapter.components
    parts = catalogue(every, ablation.components, ablation.group_size)
    sae = Sae.open(batchtopk_sae) if ablation.latents else None
    found = _find(sae, activation_shards, passages)
    if sae is not None:
        parts += latent_parts(heaviest(sae, found, ablation.latents))
    means = column_statistic(activation_shards, "mean", every) if ablation.replacement == "mean" else None
    bench = Bench(adapted, passages, means, sae, found, compute.tokens_per_batch)
    sums = _measure_all(bench, parts, ablation.slices, scratch / "parts", progress)
    rows = [_row(part, sums[i]) for i, part in enumerate(parts)]
    greedy = _greedy(bench, ablation, scratch, progress)
    metrics = _metrics(rows, greedy)
    if Rank.here().index == 0:
        _write(out, rows + greedy, parts, sums, passages)
    return metrics


def _find(sae: Sae | None, shards: Path, passages: Sequence[Passage]) -> list[Firings]:
    if sae is None:
        return []
    opened = Shards.open(shards)
    return [firings(sae, opened, passage) for passage in passages]


def _measure_all(
    bench: Bench, parts: Sequence[Part], slices: int, folder: Path, progress: Progress
) -> list[list[Sums]]:
    """[part][passage]; parts of equal effect are measured once."""
    different, place = _different(bench, parts)
    slices = min(slices, len(different))
    jobs = [(which, first) for which in range(len(bench.passages)) for first in range(slices)]
    names = [f"{bench.passages[which].rollout_id:06d}-{first:02d}" for which, first in jobs]

    def make(i: int) -> pa.Table:
        which, first = jobs[i]
        return sums_table(bench.measure(which, different[first::slices]))

    sums: list[list[Sums]] = [[] for _ in different]
    for (_, first), table in zip(jobs, work_through(names, make, folder, progress, "ablating"), strict=True):
        for i, row in zip(range(first, len(different), slices), table.to_pylist(), strict=True):
            sums[i].append(Sums(**row))
    return [sums[i] for i in place]


def _different(bench: Bench, parts: Sequence[Part]) -> tuple[list[Part], list[int]]:
    """Parts with different live components, in the order in which passes take them up, and where each part stands."""
    keys = [(part.components & bench.model.live, part.latent) for part in parts]
    first: dict[tuple[frozenset[Component], int | None], Part] = {}
    for key, part in zip(keys, parts, strict=True):
        first.setdefault(key, part)
    ordered = sorted(first, key=lambda key: min((c.layer for c in key[0]), default=0))
    place = {key: i for i, key in enumerate(ordered)}
    return [first[key] for key in ordered], [place[key] for key in keys]


def _greedy(bench: Bench, ablation: AblationConfig, scratch: Path, progress: Progress) -> list[dict[str, object]]:
    """The cumulative order: at each step the part that raises KL most joins those already ablated."""
    left = greedy_candidates(bench.model.adapter.components, ablation.greedy_part)
    gone: frozenset[Component] = frozenset()
    rows: list[dict[str, object]] = []
    for step in range(1, min(ablation.greedy_steps, len(left)) + 1):
        joined = [Part("greedy", part.unit, part.components | gone) for part in left]
        sums = _measure_all(bench, joined, ablation.slices, scratch / f"greedy-{step}", progress)
        found = [_row(part, sums[i]) | {"step": step} for i, part in enumerate(joined)]
        best = max(range(len(found)), key=lambda i: (found[i]["kl_mean"], -i))
        rows.append(found[best])
        gone = joined[best].components
        del left[best]
    return rows


def _row(part: Part, sums: Sequence[Sums]) -> dict[str, object]:
    about = {"unit_kind": part.kind, "unit": part.unit, "layer": part.layer, "projection": part.projection}
    return {**about, "step": None, "n_components": len(part.components), **effect(sums)}


def _metrics(rows: Sequence[dict], greedy: Sequence[dict]) -> AblationMetrics:
    kl = {(row["unit_kind"], row["unit"]): row["kl_mean"] for row in rows}
    singles = sorted((row for row in rows if row["unit_kind"] == "component"), key=lambda row: -row["kl_mean"])
    return AblationMetrics(
        n_units=len(rows),
        n_rollouts=rows[-1]["n_rollouts"],
        n_tokens=rows[-1]["n_tokens"],
        kl_all=kl["all", "all"],
        kl_attention=kl.get(("attention", "attention")),
        kl_mlp=kl.get(("mlp", "mlp")),
        strongest=[_short(row) for row in singles[:SHOWN]],
        projections=[_short(row) for row in rows if row["unit_kind"] == "projection"],
        greedy=[_short(row) for row in greedy],
    )


def _short(row: dict) -> dict[str, JsonValue]:
    return {name: row[name] for name in ("unit", "kl_mean", "kl_sem", "ce_delta")}


def _write(
    out: Path, rows: list[dict], parts: Sequence[Part], sums: Sequence[Sequence[Sums]], passages: Sequence[Passage]
) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=ABLATION_SCHEMA), out / ABLATION)
    kl_mean = {(row["unit_kind"], row["unit"]): row["kl_mean"] for row in rows}
    together = interactions(parts, kl_mean)
    pq.write_table(pa.Table.from_pylist(together, schema=INTERACTION_SCHEMA), out / INTERACTIONS)
    per_rollout = [
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
    pq.write_table(pa.Table.from_pylist(per_rollout, schema=ROLLOUT_SCHEMA), out / ROLLOUTS)
    save_ablation_figures(rows, together, out)
