"""KL and CE of a list of edits on one passage: the full run once, then the edited passes in growing batches.

Shapes: N rows, T tokens, P scored positions, D hidden.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from assets.ablation.adapted import AdaptedModel
from assets.ablation.divergence import Divergence, Reference, diverge, refer
from assets.ablation.edits import Edit
from assets.ablation.memory import Shape, plan_memory
from assets.ablation.passages import Passage
from assets.ablation.stream import FullStream, batched, run_edited
from resources.errors import BadInput
from resources.intervals import ratio

NEGATIVE_KL = {torch.float64: -1e-4, torch.float32: -1e-3}
"""Nats per token below which a KL is no rounding error, by the precision of the terms (see `divergence`).

Float64 terms still come from float32 logits, whose last bits depend on the batch they were computed in: -1.9e-6 was
seen at a token with logits near 20.
"""


class Sums(NamedTuple):
    """One edit on one passage, float64 sums in nats."""

    kl: float
    """Over `num_tokens` scored positions."""
    ce_delta: float
    """Over the `num_targets` of them that have a next token."""
    num_tokens: int
    num_targets: int


def effect(sums: Sequence[Sums]) -> dict[str, float | int | None]:
    """The pooled columns of one edit, from its sums on each passage."""
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


def measure(model: AdaptedModel, passage: Passage, edits: Sequence[Edit | None], tokens_per_batch: int) -> list[Sums]:
    """Sums of every edit, in the order given; None changes nothing, so that its KL is exactly 0.

    All are zero for a passage without a scored position.

    Raises:
        BadInput: for logits that are not finite, or a KL below zero by more than rounding; says where.
    """
    sums = [Sums(0.0, 0.0, len(passage.scored_P), int((passage.target_P >= 0).sum()))] * len(edits)
    changing = {i: edit for i, edit in enumerate(edits) if edit is not None} if len(passage.scored_P) else {}
    order = sorted(changing, key=lambda i: changing[i].entry)
    found = _measure_in_order(model, passage, [changing[i] for i in order], tokens_per_batch) if order else ()
    for i, one in zip(order, found, strict=True):
        sums[i] = one
    return sums


@torch.inference_mode()
def _measure_in_order(
    model: AdaptedModel, passage: Passage, edits: Sequence[Edit], tokens_per_batch: int
) -> Iterator[Sums]:
    entries = sorted({edit.entry for edit in edits})
    plan = plan_memory(Shape.of(model, len(passage.ids_T), len(passage.scored_P)), len(entries), tokens_per_batch)
    stream = FullStream(model, torch.from_numpy(passage.ids_T).long(), entries, plan.keep)
    scored_P = torch.from_numpy(passage.scored_P).to(model.device)
    target_P = torch.from_numpy(passage.target_P).to(model.device)
    reference = refer(stream.final_TD[scored_P], target_P, model.head_VD)
    if not bool(torch.isfinite(reference.log_total_P).all()):
        raise BadInput(f"the full adapter's logits are not finite in rollout {passage.rollout_id}: check the adapter")
    for batch in batched(edits, plan.rows):
        found = diverge(reference, run_edited(stream, batch)[:, scored_P], model.head_VD)
        yield from _sums(found, reference, batch, passage)


def _sums(found: Divergence, reference: Reference, batch: Sequence[Edit], passage: Passage) -> Iterator[Sums]:
    _check(found.kl_NP, reference, batch, passage)
    kl_N = found.kl_NP.sum(1).tolist()
    ce_N = (found.ce_NP - reference.ce_P).sum(1).tolist()
    num_targets = int((reference.target_P >= 0).sum())
    for kl, ce in zip(kl_N, ce_N, strict=True):
        yield Sums(kl, ce, len(passage.scored_P), num_targets)


def _check(kl_NP: torch.Tensor, reference: Reference, batch: Sequence[Edit], passage: Passage) -> None:
    terms = torch.float32 if reference.hidden_PD.dtype == torch.bfloat16 else torch.float64
    bad_NP = ~torch.isfinite(kl_NP) | (kl_NP < NEGATIVE_KL[terms])
    if not bool(bad_NP.any()):
        return
    row, at = (int(i) for i in bad_NP.nonzero()[0])
    value = float(kl_NP[row, at])
    where = f"rollout {passage.rollout_id}, position {int(passage.scored_P[at])}, with {batch[row].name}"
    if value < 0 and value > -torch.inf:
        raise BadInput(
            f"KL is {value:.3g} at {where}: negative beyond rounding, so the passes disagree; check the device"
        )
    raise BadInput(
        f"the logits are not finite at {where}: the model overflows there; take a smaller steering "
        "factor, or look at the adapter's training"
    )
