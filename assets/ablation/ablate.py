"""`ablation_kl`: the KL of every part of the adapter, as a tidy table and figure 3."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, JsonValue

from assets.ablation.activity import column_statistic
from assets.ablation.adapted import AdaptedModel
from assets.ablation.artifact import ABLATION, ABLATION_SCHEMA, INTERACTION_SCHEMA, INTERACTIONS
from assets.ablation.catalogue import Part, catalogue, greedy_candidates, removal
from assets.ablation.config import AblationConfig
from assets.ablation.edits import Edit
from assets.ablation.figures import save_ablation_figures
from assets.ablation.workbench import Workbench, draw_passages, row_of, write_rollouts
from resources.components import Component
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress
from resources.ranks import Rank

SHOWN = 10
"""Strongest components in the metrics."""


class AblationMetrics(BaseModel, frozen=True):
    """What the UI shows."""

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


def ablate(
    *,
    model: ModelConfig,
    ablation: AblationConfig,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    activation_shards: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> AblationMetrics:
    """Measure every part on every drawn rollout (paper, figure 3).

    Raises:
        BadInput: for an unknown component, a rollout shorter than 2 tokens, logits that are not finite, negative KL.
    """
    passages = draw_passages(s1k_dataset, ablation)
    adapted = AdaptedModel.load(model, lora_checkpoint, Rank.here().device(compute.device))
    every = adapted.adapter.components
    parts = catalogue(every, ablation.components, ablation.group_size)
    means = column_statistic(activation_shards, "mean", every) if ablation.replacement == "mean" else None

    def edit(part: Part, _which: int) -> Edit | None:
        return removal(part.unit, part.components & adapted.live, means)

    bench = Workbench(adapted, passages, edit, compute)
    sums = bench.measure_all(parts, ablation.slices, scratch / "parts", progress)
    rows = list(map(row_of, parts, sums))
    greedy = _greedy(bench, ablation, scratch, progress)
    metrics = _metrics(rows, greedy)
    if Rank.here().index == 0:
        _write(out, rows + greedy, parts)
        write_rollouts(out, parts, sums, passages)
    return metrics


def _greedy(bench: Workbench, ablation: AblationConfig, scratch: Path, progress: Progress) -> list[dict[str, Any]]:
    """The cumulative order: at each step the part that raises KL most joins those already ablated."""
    left = greedy_candidates(bench.model.adapter.components, ablation.greedy_part)
    gone: frozenset[Component] = frozenset()
    rows: list[dict[str, Any]] = []
    for step in range(1, min(ablation.greedy_steps, len(left)) + 1):
        joined = [Part("greedy", part.unit, part.components | gone) for part in left]
        sums = bench.measure_all(joined, ablation.slices, scratch / f"greedy-{step}", progress)
        found = [row | {"step": step} for row in map(row_of, joined, sums)]
        best = max(range(len(found)), key=lambda i: (found[i]["kl_mean"], -i))
        rows.append(found[best])
        gone = joined[best].components
        del left[best]
    return rows


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
        strongest=[short(row) for row in singles[:SHOWN]],
        projections=[short(row) for row in rows if row["unit_kind"] == "projection"],
        greedy=[short(row) for row in greedy],
    )


def short(row: dict) -> dict[str, JsonValue]:
    """A row as the UI shows it."""
    return {name: row[name] for name in ("unit", "kl_mean", "kl_sem", "ce_delta")}


def _interactions(parts: Sequence[Part], kl_mean: Mapping[tuple[str, str], float]) -> list[dict[str, object]]:
    """Every part of several components against the sum over its components, where each of them was ablated alone."""
    rows: list[dict[str, object]] = []
    for part in parts:
        alone = {("component", c.id) for c in part.components}
        if part.kind == "component" or not alone <= kl_mean.keys():
            continue
        together, apart = kl_mean[part.kind, part.unit], math.fsum(kl_mean[unit] for unit in alone)
        rows.append(
            {
                "unit_kind": part.kind,
                "unit": part.unit,
                "kl_mean": together,
                "kl_sum_of_parts": apart,
                "interaction": together - apart,
            }
        )
    return rows


def _write(out: Path, rows: list[dict], parts: Sequence[Part]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=ABLATION_SCHEMA), out / ABLATION)
    kl_mean = {(row["unit_kind"], row["unit"]): row["kl_mean"] for row in rows}
    together = _interactions(parts, kl_mean)
    pq.write_table(pa.Table.from_pylist(together, schema=INTERACTION_SCHEMA), out / INTERACTIONS)
    save_ablation_figures(rows, together, out)
