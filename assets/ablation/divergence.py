"""KL and cross-entropy of edited runs against the full run, in one pass over slices of the vocabulary.

No logits of the whole vocabulary ever exist: a slice's logits of both runs are reduced at once. Sums run in float64;
the terms in float64 for float32 models (whose KL is then exact to rounding of the logits), else in float32.
Shapes: N rows, P scored tokens, D hidden, V vocabulary, C slice of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from resources.onednn import linear

ELEMENTS = {"cpu": 2**18, "cuda": 2**26}
"""Logits of one run in one slice: 2 MB of float64, a core's second cache, and 256 MB of float32 on a GPU."""
FEWEST_COLUMNS = 16
"""Slices are not cut thinner, however many tokens there are."""
ALIGNED = 128
"""Slices begin at a multiple of this on a GPU, whose fast products want rows that begin at 16 bytes and fill tiles."""


@dataclass(frozen=True)
class Reference:
    """The full run at the scored tokens."""

    hidden_PD: torch.Tensor
    """What the unembedding reads."""
    target_P: torch.Tensor
    """int64: the next token; -1 where there is none."""
    log_total_P: torch.Tensor
    """float64: log of the sum of exp(logits)."""
    ce_P: torch.Tensor
    """float64: cross-entropy of the target, nats; 0 where there is none."""


@dataclass(frozen=True)
class Divergence:
    """Per row and scored token, float64, nats."""

    kl_NP: torch.Tensor
    """KL(full || edited)."""
    ce_NP: torch.Tensor
    """Cross-entropy of the target under the edited run; 0 where there is none."""


class _LogTotal:
    """A running log-sum-exp, its maximum exact and its sum in float64."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.peak = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
        self.total = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, logits: torch.Tensor) -> None:
        peak = torch.maximum(self.peak, logits.amax(-1))
        terms = (logits - peak[..., None].to(logits.dtype)).exp_()
        self.total = self.total * (self.peak - peak).exp() + terms.sum(-1, dtype=torch.float64)
        self.peak = peak

    def value(self) -> torch.Tensor:
        return self.peak + self.total.log()


def refer(hidden_PD: torch.Tensor, target_P: torch.Tensor, head_VD: torch.Tensor) -> Reference:
    """Read the full run once."""
    total = _LogTotal(tuple(target_P.shape), hidden_PD.device)
    chosen_P = torch.zeros_like(total.peak)
    for first, slice_CD in _slices(head_VD, len(target_P)):
        logits_PC = _logits(hidden_PD, slice_CD)
        total.add(logits_PC)
        chosen_P += _pick(logits_PC, target_P - first)
    log_total_P = total.value()
    return Reference(hidden_PD, target_P, log_total_P, (log_total_P - chosen_P) * (target_P >= 0))


def diverge(reference: Reference, hidden_NPD: torch.Tensor, head_VD: torch.Tensor) -> Divergence:
    """Compare edited runs with the full run."""
    target_P = reference.target_P
    total = _LogTotal(tuple(hidden_NPD.shape[:2]), hidden_NPD.device)
    chosen_NP = torch.zeros_like(total.peak)
    fall_NP = torch.zeros_like(total.peak)
    for first, slice_CD in _slices(head_VD, hidden_NPD.shape[0] * hidden_NPD.shape[1]):
        full_PC = _logits(reference.hidden_PD, slice_CD)
        edited_NPC = _logits(hidden_NPD, slice_CD)
        total.add(edited_NPC)
        chosen_NP += _pick(edited_NPC, target_P - first)
        weight_PC = (full_PC - reference.log_total_P[:, None].to(full_PC.dtype)).exp_()
        fall_NP += (full_PC - edited_NPC).mul_(weight_PC).sum(-1, dtype=torch.float64)
    log_total_NP = total.value()
    ce_NP = (log_total_NP - chosen_NP) * (target_P >= 0)
    return Divergence(fall_NP + (log_total_NP - reference.log_total_P), ce_NP)


def columns_per_slice(num_tokens: int, device: torch.device) -> int:
    """Vocabulary columns of one slice for that many rows x tokens."""
    columns = max(FEWEST_COLUMNS, ELEMENTS[device.type] // num_tokens)
    return columns if device.type == "cpu" else max(1, columns // ALIGNED) * ALIGNED


def _slices(head_VD: torch.Tensor, num_tokens: int) -> Iterator[tuple[int, torch.Tensor]]:
    step = columns_per_slice(num_tokens, head_VD.device)
    for first in range(0, len(head_VD), step):
        yield first, head_VD[first : first + step]


def _logits(hidden: torch.Tensor, slice_CD: torch.Tensor) -> torch.Tensor:
    wide = torch.float32 if hidden.dtype == torch.bfloat16 else torch.float64
    return linear(hidden, slice_CD).to(wide)


def _pick(logits: torch.Tensor, column_P: torch.Tensor) -> torch.Tensor:
    """The logit at a column where it lies in this slice, else 0: [..., P], float64."""
    inside_P = (column_P >= 0) & (column_P < logits.shape[-1])
    index = torch.where(inside_P, column_P, 0).expand(logits.shape[:-1])[..., None]
    return logits.gather(-1, index)[..., 0].double() * inside_P
