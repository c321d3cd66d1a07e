"""Which latents fire: the largest scores of a batch, found exactly without sorting batch x width numbers.

The threshold of the last batch, lowered a little, leaves a few candidates; the exact k-th largest is found among those.
Shapes: B tokens, D components, F latents, N selected entries (flat indices into [B, F], ascending).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

MARGIN = 0.95
"""A carried threshold is lowered to this share of itself; a batch that falls below costs one more pass."""
ESTIMATE_STRIDE = 61
"""Every how many scores a first threshold is estimated from; coprime with usual widths."""


class Selected(NamedTuple):
    """The entries of a batch of scores that fire."""

    flat_N: torch.Tensor
    """int64 indices into the flattened [B, F] scores, ascending."""
    score_N: torch.Tensor


@dataclass
class Threshold:
    """What one batch hands the next."""

    carried: float | None = None
    """Smallest score selected in the last batch."""


def above(scores_BF: torch.Tensor, bound: float) -> torch.Tensor:
    """Flat indices of the scores greater than `bound`, ascending."""
    if scores_BF.is_cuda:
        return (scores_BF > bound).flatten().nonzero().flatten()
    # numpy compares and lists bools about five times faster than torch does on a CPU
    return torch.from_numpy(np.flatnonzero(np.greater(scores_BF.numpy(), np.float32(bound))))


def largest(scores_BF: torch.Tensor, candidate_N: torch.Tensor, count: int) -> Selected | None:
    """Of the candidates, exactly the `count` with the largest scores, or None when there are fewer.

    Ties at the last place go to the lower index, so the choice is a function of the scores alone.
    """
    if len(candidate_N) < count:
        return None
    if count == 0:
        return Selected(candidate_N[:0], scores_BF.new_empty(0))
    score_N = scores_BF.view(-1).index_select(0, candidate_N)
    last = _kth_largest(score_N, count)
    keep_N = score_N >= last
    surplus = int(keep_N.sum()) - count
    if surplus:
        tied_N = (score_N == last).nonzero().flatten()
        keep_N[tied_N[len(tied_N) - surplus :]] = False
    return Selected(candidate_N.masked_select(keep_N), score_N.masked_select(keep_N))


def _kth_largest(score_N: torch.Tensor, count: int) -> float:
    position = len(score_N) - count
    if score_N.is_cuda:
        return float(torch.topk(score_N, count, sorted=False).values.min())
    return float(np.partition(score_N.numpy(), position)[position])


def select_batch(scores_BF: torch.Tensor, count: int, floor: float, threshold: Threshold) -> Selected:
    """The `count` largest scores of a batch that are greater than `floor`; fewer only when fewer are.

    Updates `threshold`, on which only the speed depends.
    """
    chosen = None
    if threshold.carried is not None:
        bound = max(floor, threshold.carried - (1 - MARGIN) * abs(threshold.carried))
        chosen = largest(scores_BF, above(scores_BF, bound), count)
    if chosen is None:
        chosen = _select_without_carry(scores_BF, count, floor)
    if len(chosen.score_N):
        threshold.carried = float(chosen.score_N.min())
    return chosen


def _select_without_carry(scores_BF: torch.Tensor, count: int, floor: float) -> Selected:
    sample = scores_BF.view(-1)[::ESTIMATE_STRIDE]
    wanted = min(len(sample), 8 + math.ceil(1.2 * count / ESTIMATE_STRIDE))
    estimate = max(floor, _kth_largest(sample.contiguous(), wanted))
    chosen = largest(scores_BF, above(scores_BF, estimate), count)
    if chosen is None:
        positive_N = above(scores_BF, floor)
        chosen = largest(scores_BF, positive_N, min(count, len(positive_N)))
    assert chosen is not None
    return chosen


def select_rows(scores_BF: torch.Tensor, k: int, floor: float) -> Selected:
    """TopK: the `k` largest scores of every token that are greater than `floor`."""
    best = torch.topk(scores_BF, k, dim=1, sorted=False)
    first_B = torch.arange(len(scores_BF), device=scores_BF.device)[:, None] * scores_BF.shape[1]
    flat_N = (best.indices + first_B)[best.values > floor].sort().values
    return Selected(flat_N, scores_BF.flatten().index_select(0, flat_N))
