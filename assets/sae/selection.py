"""Which latents fire: the largest scores of a batch, found exactly without sorting batch x width numbers.

The threshold of the last batch, lowered a little, leaves a few candidates; the exact k-th largest is found among those.
Shapes: B tokens, D components, F latents, N selected entries (flat indices into [B, F], ascending).
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from assets.sae.entries import true_entries
from assets.sae.scores import SAMPLE_STRIDE, Scores, Selected

MARGIN = 0.05
"""Share by which a carried threshold is lowered. Batches of 512 move by 1.5 % (standard deviation): one in 250 then
falls below and costs another pass, while 5 % more room costs a fifth more candidates."""


Number = TypeVar("Number", float, torch.Tensor)
"""On the host, or where a GPU keeps it."""


def lowered(carried: Number) -> Number:
    """The last batch's threshold, so low that few batches like it fall below."""
    return carried - MARGIN * abs(carried)  # pyright: ignore[reportReturnType] - abs keeps the kind


@dataclass
class Threshold:
    """What one batch hands the next; only the speed depends on it."""

    carried: float | None = None
    """Smallest score selected in the last batch."""

    def bound(self, floor: float) -> float | None:
        """A score that few more than the wanted ones exceed, if the batch is like the last ones."""
        if self.carried is None:
            return None
        return max(floor, lowered(self.carried))


def largest(found: Selected, count: int) -> Selected | None:
    """Exactly the `count` entries with the largest scores, or None when there are fewer.

    Ties at the last place go to the lower index, so the choice is a function of the scores alone.
    """
    flat_N, score_N = found
    if len(flat_N) < count:
        return None
    if count == 0:
        return Selected(flat_N[:0], score_N[:0])
    last = _kth_largest(score_N, count)
    keep_N = score_N >= last
    surplus = int(keep_N.sum()) - count
    if surplus:
        tied_N = (score_N == last).nonzero().flatten()
        keep_N[tied_N[len(tied_N) - surplus :]] = False
    return found.chosen(true_entries(keep_N))


def _kth_largest(score_N: torch.Tensor, count: int) -> float:
    position = len(score_N) - count
    if score_N.is_cuda:
        return float(torch.topk(score_N, count, sorted=False).values.min())
    return float(np.partition(score_N.numpy(), position)[position])


def select_batch(scores: Scores, count: int, floor: float, threshold: Threshold) -> Selected:
    """The `count` largest scores of a batch that are greater than `floor`; fewer only when fewer are.

    Updates `threshold`, on which only the speed depends.
    """
    bound = threshold.bound(floor)
    chosen = None if bound is None else largest(scores.above(bound), count)
    if chosen is None:
        chosen = _select_without_carry(scores, count, floor)
    if len(chosen.score_N):
        threshold.carried = float(chosen.score_N.min())
    return chosen


def _select_without_carry(scores: Scores, count: int, floor: float) -> Selected:
    sample = scores.sample()
    wanted = min(len(sample), 8 + math.ceil(1.2 * count / SAMPLE_STRIDE))
    chosen = largest(scores.above(max(floor, _kth_largest(sample, wanted))), count)
    if chosen is None:
        positive = scores.above(floor)
        chosen = largest(positive, min(count, len(positive.flat_N)))
    assert chosen is not None
    return chosen


def select_rows(scores_BF: torch.Tensor, k: int, floor: float) -> Selected:
    """TopK: the `k` largest scores of every token that are greater than `floor`."""
    best = torch.topk(scores_BF, k, dim=1, sorted=False)
    first_B = torch.arange(len(scores_BF), device=scores_BF.device)[:, None] * scores_BF.shape[1]
    flat_N = (best.indices + first_B)[best.values > floor].sort().values
    return Selected(flat_N, scores_BF.flatten().index_select(0, flat_N))
