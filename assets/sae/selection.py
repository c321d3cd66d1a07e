"""Which latents fire: the largest scores of a batch, found exactly without sorting batch x width numbers.

The threshold of the last batch, lowered a little, leaves a few candidates; the exact k-th largest is found among those.
Shapes: B tokens, D components, F latents, N selected entries (flat indices into [B, F], ascending).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

MARGIN = 0.95
"""A carried threshold is lowered to this share of itself; a batch that falls below costs one more pass."""
ROWS_AT_ONCE = 512
"""Tokens per block on a CPU: the 7 MB of scores are compared while they are still in cache."""
ESTIMATE_STRIDE = 61
"""Every how many scores a first threshold is estimated from; coprime with usual widths."""


@dataclass
class Threshold:
    """What one batch hands the next."""

    carried: float | None = None
    """Smallest score selected in the last batch."""


def score_rows(
    input_BD: torch.Tensor, encoder_FD: torch.Tensor, bias_F: torch.Tensor, out_BF: torch.Tensor, bound: float
) -> torch.Tensor:
    """Fill `out_BF` with the encoder's product, the one dense product of a step; flat indices of scores > `bound`."""
    if input_BD.is_cuda:
        torch.addmm(bias_F, input_BD, encoder_FD.T, out=out_BF)
        return above(out_BF, bound)
    found: list[np.ndarray] = []
    for start in range(0, len(input_BD), ROWS_AT_ONCE):
        block_BF = out_BF[start : start + ROWS_AT_ONCE]
        torch.addmm(bias_F, input_BD[start : start + ROWS_AT_ONCE], encoder_FD.T, out=block_BF)
        found.append(_above(block_BF.numpy(), bound) + start * out_BF.shape[1])
    return torch.from_numpy(np.concatenate(found))


def above(scores_BF: torch.Tensor, bound: float) -> torch.Tensor:
    """Flat indices of the scores greater than `bound`, ascending."""
    if scores_BF.is_cuda:
        return (scores_BF > bound).flatten().nonzero().flatten()
    return torch.from_numpy(_above(scores_BF.numpy(), bound))


def _above(scores: np.ndarray, bound: float) -> np.ndarray:
    # numpy compares and lists bools about five times faster than torch does on a CPU
    return np.flatnonzero(np.greater(scores, np.float32(bound)))


def largest(scores_BF: torch.Tensor, candidate_N: torch.Tensor, count: int) -> torch.Tensor | None:
    """Of the candidates, exactly the `count` with the largest scores, or None when there are fewer.

    Ties at the last place go to the lower index, so the choice is a function of the scores alone.
    """
    if len(candidate_N) < count:
        return None
    score_N = scores_BF.flatten()[candidate_N]
    last = _kth_largest(score_N, count)
    keep_N = score_N >= last
    surplus = int(keep_N.sum()) - count
    if surplus:
        tied_N = (score_N == last).nonzero().flatten()
        keep_N[tied_N[len(tied_N) - surplus :]] = False
    return candidate_N[keep_N]


def _kth_largest(score_N: torch.Tensor, count: int) -> float:
    position = len(score_N) - count
    if score_N.is_cuda:
        return float(torch.topk(score_N, count, sorted=False).values.min())
    return float(np.partition(score_N.numpy(), position)[position])


def select_batch(
    input_BD: torch.Tensor,
    encoder_FD: torch.Tensor,
    bias_F: torch.Tensor,
    out_BF: torch.Tensor,
    count: int,
    floor: float,
    threshold: Threshold,
) -> torch.Tensor:
    """Score a batch into `out_BF` and select its `count` largest scores that are greater than `floor`.

    Fewer are selected only when fewer are greater than `floor`. Updates `threshold`.
    """
    carried = threshold.carried
    bound = floor if carried is None else max(floor, carried - (1 - MARGIN) * abs(carried))
    candidate_N = score_rows(input_BD, encoder_FD, bias_F, out_BF, math.inf if carried is None else bound)
    chosen_N = largest(out_BF, candidate_N, count)
    if chosen_N is None:
        chosen_N = _select_without_carry(out_BF, count, floor)
    if len(chosen_N):
        threshold.carried = float(out_BF.flatten()[chosen_N].min())
    return chosen_N


def _select_without_carry(scores_BF: torch.Tensor, count: int, floor: float) -> torch.Tensor:
    sample = scores_BF.flatten()[::ESTIMATE_STRIDE]
    wanted = min(len(sample), 8 + math.ceil(1.2 * count / ESTIMATE_STRIDE))
    for bound in (max(floor, _kth_largest(sample.contiguous(), wanted)), floor):
        candidate_N = above(scores_BF, bound)
        chosen_N = largest(scores_BF, candidate_N, count)
        if chosen_N is not None:
            return chosen_N
    return candidate_N


def select_rows(scores_BF: torch.Tensor, k: int, floor: float) -> torch.Tensor:
    """TopK: the `k` largest scores of every token that are greater than `floor`."""
    best = torch.topk(scores_BF, k, dim=1, sorted=False)
    first_B = torch.arange(len(scores_BF), device=scores_BF.device)[:, None] * scores_BF.shape[1]
    return (best.indices + first_B)[best.values > floor].sort().values
