"""Which latents fire, in tensors of fixed shapes: the largest scores, found without the host.

Shapes: B tokens, F latents, M scores that may be above a bound, N selected (token, latent) pairs.
"""

from typing import Literal, NamedTuple

import torch

Selection = Literal["bounded", "batch", "rows"]
"""The largest of a batch, where a bound leaves few or among all, or of every token."""


class Above(NamedTuple):
    """Which scores exceed a bound."""

    flat_M: torch.Tensor
    """Their flat indices, ascending, then -1; where there are more than M, the last are left out."""
    number: torch.Tensor
    """How many, and M where there are more."""


class Scored(NamedTuple):
    """A batch's scores."""

    scores_BF: torch.Tensor
    above: Above | None
    """None: the selection takes no bound."""


class Chosen(NamedTuple):
    """Selected pairs, sorted by token."""

    row_N: torch.Tensor
    latent_N: torch.Tensor
    value_N: torch.Tensor
    """0 where it does not count."""
    counts_N: torch.Tensor | None
    """bool: the score is above the floor. None: all are."""
    score_N: torch.Tensor


def choose(selection: Selection, scored: Scored, k: int, floor: float) -> Chosen:
    """k scores per token, or on average over a batch."""
    count = k * len(scored.scores_BF)
    if selection == "rows":
        return of_rows(scored.scores_BF, k, floor)
    return of_bounded(scored, count) if selection == "bounded" else of_batch(scored.scores_BF, count, floor)


def scored_above(scores_BF: torch.Tensor, bound: torch.Tensor, count: int) -> Scored:
    """With what exceeds the bound, to choose `count` of it.

    One place more is looked for than is made use of: whether there are too many is known without counting them all.
    """
    is_above_BF = scores_BF > bound
    flat_M = torch.nonzero_static(is_above_BF.view(-1), size=most_above(count) + 1, fill_value=-1).view(-1)
    return Scored(scores_BF, Above(flat_M, (flat_M >= 0).sum()))


def of_bounded(scored: Scored, count: int) -> Chosen:
    """The `count` largest scores of a batch in which `count` to `most_above(count)` exceed the bound, by rising place.

    All of them count: no bound is below the floor. Of equal scores at the last place those of lower index are taken.
    A sort takes 52 us on an H200, where `topk` takes 82 for 512 tokens, and tells ties apart as well.
    """
    assert scored.above is not None
    flat_M = scored.above.flat_M[:-1]
    score_M = torch.where(flat_M >= 0, scored.scores_BF.view(-1)[flat_M], -torch.inf)
    best_N = torch.sort(score_M, descending=True, stable=True).indices[:count]
    keep_M = torch.zeros_like(flat_M, dtype=torch.bool).index_fill_(0, best_N, True)
    place_N = torch.nonzero_static(keep_M, size=count).view(-1)
    flat_N, score_N = flat_M[place_N].to(integers_to(scored.scores_BF.numel())), score_M[place_N]
    row_N, latent_N = _at(flat_N, scored.scores_BF.shape[1])
    return Chosen(row_N, latent_N, score_N, None, score_N)


def most_above(count: int) -> int:
    """So many scores above the bound are looked through for `count` of them."""
    return 2 * count


def of_batch(scores_BF: torch.Tensor, count: int, floor: float) -> Chosen:
    """The `count` largest scores of any batch, which takes longer than where a bound leaves few."""
    best = torch.topk(scores_BF.view(-1), count, sorted=False)
    flat_N, order_N = torch.sort(best.indices.to(integers_to(scores_BF.numel())))
    return _chosen(*_at(flat_N, scores_BF.shape[1]), best.values[order_N], floor)


def _at(flat_N: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    row_N = flat_N // width
    return row_N.int(), torch.sub(flat_N, row_N, alpha=width).int()


def of_rows(scores_BF: torch.Tensor, k: int, floor: float) -> Chosen:
    """The `k` largest scores of every token."""
    best = torch.topk(scores_BF, k, dim=1, sorted=False)
    row_N = torch.arange(len(scores_BF), device=scores_BF.device).repeat_interleave(k, output_size=best.values.numel())
    return _chosen(row_N.int(), best.indices.view(-1).int(), best.values.view(-1), floor)


def _chosen(row_N: torch.Tensor, latent_N: torch.Tensor, score_N: torch.Tensor, floor: float) -> Chosen:
    counts_N = score_N > floor
    value_N = torch.where(counts_N, score_N, 0.0)
    return Chosen(row_N, latent_N, value_N, counts_N, score_N)


def integers_to(numbers: int) -> torch.dtype:
    """The smallest integers that count to `numbers`: a sort's time grows with their bytes."""
    return next(kind for kind in (torch.int16, torch.int32, torch.int64) if numbers - 1 <= torch.iinfo(kind).max)
