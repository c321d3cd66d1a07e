"""From sums per rollout to means with standard errors, and from parts to interactions."""

import math
from collections.abc import Mapping, Sequence

from assets.ablation.catalogue import Part
from assets.ablation.measure import Sums
from resources.intervals import ratio


def effect(sums: Sequence[Sums]) -> dict[str, float | int | None]:
    """The pooled columns of one edit, from its sums on each rollout."""
    scored = [s for s in sums if s.num_tokens]
    kl = ratio([s.kl for s in scored], [s.num_tokens for s in scored])
    targets = sum(s.num_targets for s in scored)
    return {
        "kl_mean": kl.value,
        "kl_sem": kl.sem,
        "ce_delta": math.fsum(s.ce_delta for s in scored) / targets if targets else None,
        "n_tokens": sum(s.num_tokens for s in scored),
        "n_rollouts": len(scored),
    }


def interactions(parts: Sequence[Part], kl_mean: Mapping[tuple[str, str], float]) -> list[dict[str, object]]:
    """Every part of several components against the sum over its components, where each of them was ablated alone."""
    rows: list[dict[str, object]] = []
    for part in parts:
        alone = [kl_mean.get(("component", c.id)) for c in part.components]
        if part.kind == "component" or not alone or None in alone:
            continue
        together, apart = kl_mean[part.kind, part.unit], math.fsum(kl for kl in alone if kl is not None)
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
