"""Every table of the report as rows: those of the paper, the SAE's, the numbers behind the figures, and settings."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from assets.ablation.artifact import AblationKl
from assets.paper.claims import CLAIMS, SAE_SIZES
from assets.paper.settings import settings
from resources.manifest import Manifest

Row = dict[str, Any]
SAE_NUMBERS = (
    ("components that enter", "d_in"),
    ("latents", "d_sae"),
    ("latents per token, mean of a batch (k)", "k"),
    ("live latents", "live_latents"),
    ("dead latents", "dead_latents"),
    ("variance unexplained (FVU), held out", "held_out/fvu"),
    ("cosine of state and reconstruction, held out", "held_out/cosine"),
    ("latents per token (L0), held out", "held_out/l0"),
    ("its 5th percentile", "held_out/l0_p05"),
    ("its 95th percentile", "held_out/l0_p95"),
    ("largest cosine with another decoder row, mean", "held_out/decoder_similarity"),
    ("KL with the reconstruction in place (nats per token)", "effect/kl_reconstructed"),
    ("KL with the state set to zero (nats per token)", "effect/kl_zeroed"),
    ("share of that KL recovered", "effect/kl_recovered"),
    ("share of the cross-entropy recovered", "effect/cross_entropy_recovered"),
    ("training tokens", "training_tokens"),
    ("training steps", "steps"),
)
"""What it is, and its place in the SAE's metrics."""


def tables(manifests: Mapping[str, Manifest], ablation_kl: Path) -> dict[str, list[Row]]:
    """Name -> rows; a table without rows is left out."""
    found: dict[str, list[Row]] = {
        "table_1": manifests["benchmark_scores"].rows("table_1"),
        "table_2": manifests["benchmark_scores"].rows("table_2"),
        "scores": manifests["benchmark_scores"].rows("scores"),
        "classes": manifests["category_densities"].rows("classes"),
        "categories": manifests["category_densities"].rows("densities"),
        "ablation": AblationKl.open(ablation_kl).table().to_pylist(),
        "strongest_components": manifests["ablation_kl"].rows("strongest"),
        "explanations": manifests["interpretation_scores"].rows("summary"),
        "agreement": manifests["interpretations"].rows("agreement"),
        "sae": list(sae_rows(manifests["batchtopk_sae"])),
        "sae_baselines": manifests["batchtopk_sae"].rows("baselines"),
        "settings": settings(manifests.values()),
    }
    return {name: rows for name, rows in found.items() if rows}


def sae_rows(sae: Manifest) -> Iterator[Row]:
    """The SAE's numbers, each beside the published one where there is one."""
    paper: dict[str, float | None] = {**SAE_SIZES}
    paper["live_latents"] = next(claim.published for claim in CLAIMS if claim.id == "sae_live")
    for name, place in SAE_NUMBERS:
        value = sae.at(place)
        if value is not None:
            yield {"number": name, "measured": value, "paper": paper.get(place)}


def write_tables(rows_by_name: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> None:
    """One CSV per table that has rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in ((name, rows) for name, rows in rows_by_name.items() if rows):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
