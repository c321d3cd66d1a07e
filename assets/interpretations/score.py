"""Score every explanation on held-out rollouts: random and same-token negatives, several draws, an interval.

Predicates are scored by what they say of one token; an LLM's words by another LLM that reads excerpts (`judge.py`).
"""

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from assets.interpretations.artifact import CLASSES, SCORES_FILE, SCORES_SCHEMA, Interpretations, Predicate
from assets.interpretations.config import STATISTICAL, ScoresConfig
from assets.interpretations.corpus import Corpus
from assets.interpretations.evidence import read_evidence
from assets.interpretations.judge import judge_units
from assets.interpretations.token_detection import score_predicate, unscored
from resources.compute import ComputeConfig
from resources.llm.ask import Bill
from resources.progress import Progress


class ScoreMetrics(BaseModel, frozen=True):
    """What the UI shows of a run."""

    scored: int
    insufficient: int
    failed: int
    summary: list[dict[str, str | int | float | None]]
    """Mean scores per kind, explainer, method and class of the explanation (-1: none)."""
    requests: int
    cached: int
    cost_usd: float


def score(
    *,
    scores: ScoresConfig,
    s1k_dataset: Path,
    max_activating_contexts: Path,
    interpretations: Path,
    out: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> ScoreMetrics:
    """Write `scores.parquet`: for each unit the LLM's rows (if any), then the row of its predicate."""
    explained = Interpretations.open(interpretations)
    knobs = explained.settings()
    corpus = Corpus.open(s1k_dataset)
    rows_by_unit = {row["unit"]: row for row in explained.rows()}
    rows = []
    for evidence in read_evidence(max_activating_contexts, corpus, knobs):
        row = rows_by_unit[evidence.unit]
        if row["predicate"]:
            predicate = Predicate.model_validate_json(row["predicate"])
            rows.append(score_predicate(evidence, predicate, corpus, scores, knobs.seed))
        else:
            rows.append(unscored(evidence.unit, evidence.kind, row["detail"] or "there is no predicate to score"))
        progress.step("score", len(rows), len(rows_by_unit))
    bill = Bill()
    if knobs.provider != STATISTICAL:
        evidence = read_evidence(max_activating_contexts, corpus, knobs)
        judged, bill = judge_units(scores, knobs, compute, s1k_dataset, corpus, evidence, rows_by_unit, progress)
        rows = judged + rows
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES_SCHEMA), out / SCORES_FILE)
    status = [row["status"] for row in rows]
    return ScoreMetrics(
        scored=status.count("ok"),
        insufficient=status.count("insufficient"),
        failed=status.count("failed"),
        summary=summary(rows, rows_by_unit),
        **asdict(bill),
    )


def summary(rows: list[dict], explained: dict[str, dict]) -> list[dict[str, str | int | float | None]]:
    """Mean accuracy, sensitivities and hard-negative precision of the scored rows, per group.

    Guessing gives half of a balanced accuracy and a fifth of the intruders, so the two share no column.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["status"] != "ok":
            continue
        told = explained[row["unit"]]
        label = told["statistical_label"] if row["explainer"] == STATISTICAL else told["label"]
        label = -1 if label is None else label
        groups.setdefault((row["kind"], row["explainer"], row["method"], label), []).append(row)
    return [
        {
            "kind": kind,
            "explainer": explainer,
            "method": method,
            "label": label,
            "class": CLASSES.get(label, "none"),
            "units": len(group),
            "balanced_accuracy": _mean(group, "balanced_accuracy") if method != "intruder" else None,
            "intruder_accuracy": _mean(group, "balanced_accuracy") if method == "intruder" else None,
            "sensitivity": _mean(group, "sensitivity"),
            "sensitivity_typical": _mean(group, "sensitivity_typical"),
            "precision_hard": _mean(group, "precision_hard"),
        }
        for (kind, explainer, method, label), group in sorted(groups.items())
    ]


def _mean(rows: list[dict], column: str) -> float | None:
    """Mean of the known values; None when none is known."""
    known = [row[column] for row in rows if row[column] is not None]
    return sum(known) / len(known) if known else None
