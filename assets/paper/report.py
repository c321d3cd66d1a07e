"""Write the report: tables, figures and claims of the paper, each from an artifact of ours."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from assets.paper.artifact import FIGURES, PAGE, REPORT, TABLES
from assets.paper.captions import Figure
from assets.paper.claims import CLAIMS, Claim, Measurement, verdict
from assets.paper.evidence import measure
from assets.paper.examples import examples
from assets.paper.page import render
from assets.paper.tables import tables, write_tables
from resources.charts import FOLDER
from resources.manifest import read_manifest
from resources.models import PUBLISHED
from resources.progress import Progress


class ReportMetrics(BaseModel, frozen=True):
    """The claims, as the UI, the checks and the comparison show them."""

    claims: list[dict[str, JsonValue]]
    reproduced: int
    """Claims reproduced, or whose pattern holds where numbers are not comparable."""
    differing: int
    open: int
    """Claims undecided, not comparable, not bounded or not measured."""


def report(
    *,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    full_finetune_checkpoint: Path,
    activation_shards: Path,
    neuron_shards: Path,
    batchtopk_sae: Path,
    max_activating_contexts: Path,
    interpretations: Path,
    interpretation_scores: Path,
    feature_categories: Path,
    category_densities: Path,
    ablation_kl: Path,
    latent_kl: Path,
    steering_effects: Path,
    benchmark_scores: Path,
    feature_dashboard: Path,
    out: Path,
    progress: Progress,
) -> ReportMetrics:
    """Write `index.html`, `report.json`, `figures/` and `tables/` into `out`."""
    artifacts = {
        path.parent.name: path
        for path in (
            s1k_dataset, lora_checkpoint, full_finetune_checkpoint, activation_shards, neuron_shards, batchtopk_sae,
            max_activating_contexts, interpretations, interpretation_scores, feature_categories, category_densities,
            ablation_kl, latent_kl, steering_effects, benchmark_scores, feature_dashboard,
        )
    }  # fmt: skip
    manifests = {asset: read_manifest(path) for asset, path in artifacts.items()}
    model = str(manifests["lora_checkpoint"].sections["model"]["name"])
    comparable = is_papers_model(model)
    claims = claim_rows(measure(artifacts), comparable=comparable)
    progress.say(f"{len(claims)} claims answered")
    figures = _figures(artifacts, out)
    found = tables(manifests, ablation_kl)
    shown = examples(artifacts)
    cited = [{name: value for name, value in example.items() if name != "contexts"} for example in shown]
    write_tables({"claims": claims, **found, "examples": cited}, out / TABLES)
    content = {
        "model": model,
        "claims": claims,
        "tables": found,
        "figures": [f"{FIGURES}/{figure.asset}-{figure.name}.svg" for figure in figures],
        "examples": shown,
        "artifacts": {asset: manifest.key for asset, manifest in manifests.items()},
    }
    (out / REPORT).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    page = render(model, claims, found, figures, shown, manifests, comparable)
    (out / PAGE).write_text(page, encoding="utf-8")
    return metrics(claims)


def is_papers_model(name: str) -> bool:
    """Whether a hub id or folder ends in the name of the paper's model, or in its commit, as the hub's cache does.

    Numbers are comparable with the published ones only there. The name is taken at its word: Qwen2.5-32B and what is
    trained from it have the same architecture, and no artifact holds the published weights' hash.
    """
    return Path(name).name in (Path(PUBLISHED[0]).name, PUBLISHED[1])


def claim_rows(measured: Mapping[str, Measurement | None], *, comparable: bool) -> list[dict[str, Any]]:
    """One row per claim, in the paper's order."""
    return [_claim_row(claim, measured[claim.id], comparable) for claim in CLAIMS]


def _claim_row(claim: Claim, measured: Measurement | None, comparable: bool) -> dict[str, Any]:
    return {
        "id": claim.id,
        "where": claim.where,
        "statement": claim.statement,
        "published": claim.published,
        "expected": claim.expected,
        "measured": measured.value if measured else None,
        "low": measured.low if measured else None,
        "high": measured.high if measured else None,
        "unbounded": measured.unbounded if measured else None,
        "verdict": verdict(claim, measured, comparable),
        "asset": measured.asset if measured else None,
        "percent": claim.percent,
    }


def metrics(claims: Sequence[Mapping[str, Any]]) -> ReportMetrics:
    """The claims and how many of them came out how."""
    verdicts = [row["verdict"] for row in claims]
    return ReportMetrics(
        claims=[dict(row) for row in claims],
        reproduced=sum(v in ("reproduced", "same pattern") for v in verdicts),
        differing=sum(v in ("differs", "pattern differs") for v in verdicts),
        open=sum(v in ("undecided", "not comparable", "not bounded", "not measured") for v in verdicts),
    )


def _figures(artifacts: Mapping[str, Path], out: Path) -> list[Figure]:
    """Copy every chart of every artifact, and keep its specification for the page."""
    (out / FIGURES).mkdir()
    found: list[Figure] = []
    for asset, folder in artifacts.items():
        for path in sorted((folder / FOLDER).glob("*.vl.json")):
            name = path.name.removesuffix(".vl.json")
            for suffix in (".vl.json", ".svg", ".png"):
                shutil.copyfile(path.with_name(name + suffix), out / FIGURES / f"{asset}-{name}{suffix}")
            found.append(Figure(asset, name, path.read_text(encoding="utf-8")))
    return found
