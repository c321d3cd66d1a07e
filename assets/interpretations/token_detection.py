"""Detection by a predicate: does it hold on held-out tokens that fire, and fail on held-out tokens that do not?"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from assets.interpretations.artifact import SCORES_SCHEMA, Predicate
from assets.interpretations.config import STATISTICAL, ScoresConfig
from assets.interpretations.corpus import Corpus
from assets.interpretations.evidence import HELD_OUT, Evidence
from assets.interpretations.intervals import balanced

LEAST_POSITIVES = 4
"""Fewer held-out peaks, or quiet tokens, than this give no score."""


class _Drawn(NamedTuple):
    """Indices of one draw: of positives, of any quiet tokens, and of further ones that bear a positive's token."""

    fires: np.ndarray
    random: np.ndarray
    tricky: np.ndarray


def unit_rng(unit: str, seed: int) -> np.random.Generator:
    """A generator for one unit that does not depend on which other units there are."""
    return np.random.default_rng([seed, crc32(unit.encode())])


def unscored(unit: str, kind: str, detail: str) -> dict[str, Any]:
    """The row of a unit that has no score."""
    row: dict[str, Any] = dict.fromkeys(SCORES_SCHEMA.names)
    return row | {
        "unit": unit, "kind": kind, "explainer": STATISTICAL, "judge": STATISTICAL, "method": "detection",
        "target": "token", "n_examples": 0, "n_failed": 0, "draws": 0, "status": "insufficient", "detail": detail,
    }  # fmt: skip


def score_predicate(
    evidence: Evidence, predicate: Predicate, corpus: Corpus, scores: ScoresConfig, seed: int
) -> dict[str, Any]:
    """One row of the scores table for a predicate."""
    fires = evidence.part_n == HELD_OUT
    positive, value = evidence.peak_n[fires], evidence.value_n[fires]
    quiet = evidence.quiet_q[evidence.quiet_part_q == HELD_OUT]
    if len(positive) < LEAST_POSITIVES or len(quiet) < LEAST_POSITIVES:
        found = f"{len(positive)} firing and {len(quiet)} quiet tokens in held-out rollouts"
        return unscored(evidence.unit, evidence.kind, f"{found}; {LEAST_POSITIVES} of each are needed")
    hard = np.isin(corpus.token_N[quiet], corpus.token_N[positive])
    positive_holds = predicate.holds(corpus.features(positive))
    quiet_holds = predicate.holds(corpus.features(quiet))
    typical = positive_holds[evidence.typical_n[fires]]
    return unscored(evidence.unit, evidence.kind, "") | _measured(
        _draws(positive_holds, hard, scores, unit_rng(evidence.unit, seed)),
        positive_holds,
        quiet_holds,
        hard,
    ) | {
        "sensitivity_typical": float(typical.mean()) if len(typical) else None,
        "spearman": _spearman(positive_holds, value, quiet_holds),
    }  # fmt: skip


def _draws(positive: np.ndarray, hard: np.ndarray, scores: ScoresConfig, rng: np.random.Generator) -> list[_Drawn]:
    half, quarter = scores.examples // 2, scores.examples // 4
    hard_rows, chosen = np.flatnonzero(hard), []
    for _ in range(scores.draws):
        random = _some(np.arange(len(hard)), half - min(quarter, len(hard_rows)), rng)
        tricky = _some(np.setdiff1d(hard_rows, random), quarter, rng)
        chosen.append(_Drawn(_some(np.arange(len(positive)), half, rng), random, tricky))
    return chosen


def _some(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(rows, size=min(size, len(rows)), replace=False)


def _measured(draws: list[_Drawn], positive: np.ndarray, quiet: np.ndarray, hard: np.ndarray) -> dict[str, Any]:
    stills = [np.concatenate([each.random, each.tricky]) for each in draws]
    accuracies = [
        (positive[each.fires].mean() + (~quiet[still]).mean()) / 2 for each, still in zip(draws, stills, strict=True)
    ]
    fires, still = np.unique(np.concatenate([each.fires for each in draws])), np.unique(np.concatenate(stills))
    random = np.unique(np.concatenate([each.random for each in draws]))
    middle, low, high = balanced(positive[fires].sum(), len(fires), (~quiet[still]).sum(), len(still))
    sensitivity = float(positive[fires].mean())
    return {
        "balanced_accuracy": middle,
        "ci_low": low,
        "ci_high": high,
        "sensitivity": sensitivity,
        "specificity": float((~quiet[still]).mean()),
        "precision_random": precision(sensitivity, quiet[random]),
        "precision_hard": precision(sensitivity, quiet[still][hard[still]]),
        "n_examples": len(fires) + len(still),
        "draws": len(draws),
        "draw_spread": float(np.std(accuracies, ddof=1)),
        "status": "ok",
    }


def precision(sensitivity: float, false: Sequence[float] | np.ndarray) -> float | None:
    """Precision among as many negatives as positives; None without negatives, or without any positive call."""
    if not len(false) or sensitivity + sum(false) == 0:
        return None
    return float(sensitivity / (sensitivity + sum(false) / len(false)))


def _spearman(positive: np.ndarray, value: np.ndarray, quiet: np.ndarray) -> float | None:
    """Rank correlation of the prediction with the activation, quiet tokens counting as 0; None when either is flat."""
    from scipy.stats import rankdata

    predicted = np.concatenate([positive, quiet]).astype(np.float64)
    if predicted.min() == predicted.max():
        return None
    # The ranks of predictions, which are 0 or 1, are as far apart as they are themselves.
    actual = rankdata(np.concatenate([value, np.zeros(len(quiet))]))
    return float(np.corrcoef(predicted, actual)[0, 1])
