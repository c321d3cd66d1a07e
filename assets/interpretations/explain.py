"""Explain every unit: offline by predicates always, and by an LLM where the config names one."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from assets.contexts.artifact import CONTEXTS_FILE, per_unit
from assets.interpretations.artifact import (
    CLASSES,
    INTERPRETATIONS_FILE,
    INTERPRETATIONS_SCHEMA,
    SETTINGS_FILE,
)
from assets.interpretations.config import STATISTICAL, InterpretationsConfig
from assets.interpretations.corpus import Corpus
from assets.interpretations.evidence import Evidence, read_evidence
from assets.interpretations.label import label_units
from assets.interpretations.statistical import StatisticalExplainer, Verdict
from resources.agreement import kappa
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.llm.ask import Bill
from resources.progress import Progress
from resources.units import parse_unit

NULL_DONORS = 200
"""Units whose peaks lend their token frequencies to the null sets."""


class ExplainMetrics(BaseModel, frozen=True):
    """What the UI shows of a run."""

    units: int
    explained: int
    insufficient: int
    failed: int
    without_contexts: int
    """Units in the units file that have no context at all; they have a row that says so."""
    classes: list[dict[str, str | int | float | None]]
    """Count and share of every class, per kind and explainer; no share where no unit of the kind has a class."""
    agreement_kappa: float | None
    """Cohen's kappa of the LLM's classes with the statistical ones; None without an LLM."""
    agreement: list[dict[str, int]]
    """Confusion: LLM class, statistical class (-1 insufficient), units."""
    stability: float | None
    """Mean share of answers (LLM) or halves (statistical) that agree with the row's own."""
    requests: int
    cached: int
    cost_usd: float
    failures: list[dict[str, str]]
    """First twenty failed units with the reason."""


def explain(
    *,
    interpretations: InterpretationsConfig,
    s1k_dataset: Path,
    max_activating_contexts: Path,
    out: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> ExplainMetrics:
    """Write `interpretations.parquet`.

    Raises:
        BadInput: when there are no contexts, no key, or an endpoint that refuses every request.
    """
    corpus = Corpus.open(s1k_dataset)
    kinds = per_unit(max_activating_contexts, "kind")
    rows = statistical_rows(interpretations, corpus, max_activating_contexts, progress)
    if not rows:
        raise BadInput(f"{max_activating_contexts} has no contexts of the kinds {', '.join(interpretations.kinds)}")
    bill = Bill()
    if interpretations.provider != STATISTICAL:
        evidence = read_evidence(max_activating_contexts, corpus, interpretations)
        labelled, bill = label_units(interpretations, compute, s1k_dataset, evidence, len(rows), progress)
        rows = [row | labelled[row["unit"]] for row in rows]
    found = {row["unit"]: row for row in rows}
    wanted = {unit: kind for unit, kind in kinds.items() if kind in interpretations.kinds}
    explainer = rows[0]["explainer"]
    rows = [found.get(unit) or _without_contexts(unit, kind, explainer) for unit, kind in wanted.items()]
    pq.write_table(pa.Table.from_pylist(rows, schema=INTERPRETATIONS_SCHEMA), out / INTERPRETATIONS_FILE)
    (out / SETTINGS_FILE).write_text(interpretations.model_dump_json(indent=1), encoding="utf-8")
    return _metrics(rows, len(rows) - len(found), bill)


def statistical_rows(knobs: InterpretationsConfig, corpus: Corpus, contexts: Path, progress: Progress) -> list[dict]:
    """One row per unit with contexts, explained by predicates."""
    explainers = _explainers(knobs, corpus, contexts)
    total = sum(kind in knobs.kinds for kind in per_unit(contexts, "kind").values())
    rows = []
    for evidence in read_evidence(contexts, corpus, knobs):
        rows.append(_row(evidence, explainers[evidence.kind].explain(evidence), knobs))
        progress.step("explain", len(rows), total)
    return rows


def _explainers(knobs: InterpretationsConfig, corpus: Corpus, contexts: Path) -> dict[str, StatisticalExplainer]:
    """Kind -> its explainer; neurons may have been captured on other tokens than the adapter was."""
    whole = kinds_with_prompts(contexts, corpus) & set(knobs.kinds)
    explainers: dict[str, StatisticalExplainer] = {}
    for observed, kinds in ((corpus, whole), (corpus.replies(), set(knobs.kinds) - whole)):
        if kinds:
            explainer = StatisticalExplainer(observed, knobs)
            evidence = (each for each in read_evidence(contexts, corpus, knobs) if each.kind in kinds)
            explainer.build_null(_donors(evidence, knobs))
            explainers |= dict.fromkeys(kinds, explainer)
    return explainers


def kinds_with_prompts(contexts: Path, corpus: Corpus) -> set[str]:
    """Kinds of unit that were looked at on prompts too: windows are cut at what was not captured."""
    rows = pq.read_table(contexts / CONTEXTS_FILE, columns=["unit", "rollout_id", "start"])
    first = corpus.flat(rows["rollout_id"].to_numpy(), rows["start"].to_numpy())
    units = rows["unit"].filter(pa.array(~corpus.reply_N[first])).unique().to_pylist()
    return {parse_unit(unit).kind for unit in units}


def _donors(evidence: Iterable[Evidence], knobs: InterpretationsConfig) -> list[np.ndarray]:
    donors = []
    for each in evidence:
        shown = each.shown(knobs.contexts_shown)
        if len(shown) >= knobs.min_contexts:
            donors.append(each.peak_n[shown])
        if len(donors) >= NULL_DONORS:
            break
    return donors


def _row(evidence: Evidence, verdict: Verdict, knobs: InterpretationsConfig) -> dict:
    return {
        "unit": evidence.unit,
        "kind": evidence.kind,
        "explainer": STATISTICAL,
        "explanation": verdict.explanation,
        "label": verdict.label,
        "reasoning": verdict.reasoning,
        "status": verdict.status,
        "detail": verdict.detail,
        "stability": verdict.stability,
        "contexts_shown": len(evidence.shown(knobs.contexts_shown)),
        "statistical_explanation": verdict.explanation,
        "statistical_label": verdict.label,
        "predicate": "" if verdict.predicate is None else verdict.predicate.model_dump_json(),
        "coverage": verdict.coverage,
        "p_null": verdict.p_null,
    }


def _without_contexts(unit: str, kind: str, explainer: str) -> dict:
    row = dict.fromkeys(INTERPRETATIONS_SCHEMA.names)
    words = {"explanation": "", "reasoning": "", "statistical_explanation": "", "predicate": "", "contexts_shown": 0}
    return row | words | {
        "unit": unit,
        "kind": kind,
        "explainer": explainer,
        "status": "insufficient",
        "detail": "the unit never fires, so there is no context to explain",
    }  # fmt: skip


def _metrics(rows: list[dict], without: int, bill: Bill) -> ExplainMetrics:
    status = [row["status"] for row in rows]
    kappa_value, confusion = agreement(rows)
    stabilities = [row["stability"] for row in rows if row["stability"] is not None]
    failed = [row for row in rows if row["status"] == "failed"]
    return ExplainMetrics(
        units=len(rows),
        explained=status.count("ok"),
        insufficient=status.count("insufficient"),
        failed=len(failed),
        without_contexts=without,
        classes=class_counts(rows),
        agreement_kappa=kappa_value,
        agreement=confusion,
        stability=sum(stabilities) / len(stabilities) if stabilities else None,
        **asdict(bill),
        failures=[{"unit": row["unit"], "reason": row["detail"]} for row in failed[:20]],
    )


def class_counts(rows: list[dict]) -> list[dict[str, str | int | float | None]]:
    """Count and share of each class among the labelled units of a kind; explainers are never put together."""
    counted = []
    for kind, explainer in sorted({(row["kind"], row["explainer"]) for row in rows}):
        labels = [
            r["label"] for r in rows if (r["kind"], r["explainer"]) == (kind, explainer) and r["label"] is not None
        ]
        for label, name in CLASSES.items():
            n = labels.count(label)
            share = n / len(labels) if labels else None
            counted.append(
                {"kind": kind, "explainer": explainer, "label": label, "class": name, "units": n, "share": share}
            )
    return counted


def agreement(rows: list[dict]) -> tuple[float | None, list[dict[str, int]]]:
    """Kappa and confusion of the explainer's classes with the statistical ones, over units both have labelled."""
    if all(row["explainer"] == STATISTICAL for row in rows):
        return None, []
    pairs = [
        (row["label"], -1 if row["statistical_label"] is None else row["statistical_label"])
        for row in rows
        if row["label"] is not None
    ]
    both = [pair for pair in pairs if pair[1] >= 0]
    confusion = [{"llm": a, "statistical": b, "units": pairs.count((a, b))} for a, b in sorted(set(pairs))]
    return (kappa(both) if both else None), confusion
