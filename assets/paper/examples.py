"""Units worth reading: the ones whose explanation predicts best on rollouts it has not seen."""

from collections.abc import Mapping
from pathlib import Path

from assets.contexts.artifact import top_contexts
from assets.dataset.artifact import S1kDataset
from assets.interpretations.artifact import Interpretations, Scores

PER_KIND = 6
CONTEXTS = 3
AROUND = 12
"""Tokens shown on each side of a peak."""


def examples(artifacts: Mapping[str, Path]) -> list[dict]:
    """The best explained directions and latents, with their strongest contexts."""
    said = {row["unit"]: row for row in Interpretations.open(artifacts["interpretations"]).rows()}
    explainers = {unit: row["explainer"] for unit, row in said.items()}
    own = Scores.open(artifacts["interpretation_scores"]).of("detection", explainers)
    scored = [row for unit, row in own.items() if row["ci_low"] is not None and said[unit]["label"] is not None]
    contexts = top_contexts(artifacts["max_activating_contexts"], CONTEXTS)
    dataset = S1kDataset.open(artifacts["s1k_dataset"])
    found: list[dict] = []
    for kind in ("latent", "adapter"):
        # Distinct explanations: ten latents for one token tell a reader no more than one.
        best: dict[str, dict] = {}
        for row in sorted((r for r in scored if r["kind"] == kind), key=lambda r: (-r["ci_low"], r["unit"])):
            best.setdefault(said[row["unit"]]["explanation"], row)
        for row in list(best.values())[:PER_KIND]:
            found.append(_example(row, said[row["unit"]], contexts.get(row["unit"], []), dataset))
    return found


def _example(score: dict, said: dict, contexts: list[dict], dataset: S1kDataset) -> dict:
    return {
        "unit": score["unit"],
        "explanation": said["explanation"],
        "explainer": said["explainer"],
        "label": said["label"],
        "stability": said["stability"],
        "balanced_accuracy": score["balanced_accuracy"],
        "ci_low": score["ci_low"],
        "ci_high": score["ci_high"],
        "contexts": [_excerpt(row, dataset) for row in contexts],
    }


def _excerpt(row: dict, dataset: S1kDataset) -> dict:
    """Text before, at and after the peak token."""
    before, token, after = dataset.around(row["rollout_id"], row["position"], AROUND)
    return {
        "rollout": row["rollout_id"],
        "position": row["position"],
        "value": row["value"],
        "before": before,
        "token": token,
        "after": after,
    }
