"""The selection against sorting everything."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.sae.scores import BlockScores, Selected
from assets.sae.selection import Threshold, largest, select_batch, select_rows


def brute_force(scores: torch.Tensor, count: int, floor: float) -> list[int]:
    """Flat indices of the `count` largest; among equals the lower index wins."""
    flat = scores.flatten().tolist()
    order = sorted((i for i in range(len(flat)) if flat[i] > floor), key=lambda i: (-flat[i], i))
    return sorted(order[:count])


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(-3, 5), min_size=12, max_size=60),
    count=st.integers(1, 12),
    carried=st.none() | st.integers(-4, 6),
    floor=st.sampled_from([0.0, -np.inf]),
)
def test_selection_equals_sorting_whatever_threshold_was_carried(
    values: list[int], count: int, carried: int | None, floor: float
) -> None:
    rows = len(values) // 4
    scores = torch.tensor(values[: rows * 4], dtype=torch.float32).view(rows, 4)
    threshold = Threshold(None if carried is None else float(carried))
    chosen = select_batch(BlockScores(scores, torch.eye(4), torch.zeros(4)), count, floor, threshold)
    expected = brute_force(scores, count, floor)
    assert chosen.flat_N.tolist() == expected
    assert chosen.score_N.tolist() == [scores.flatten()[i].item() for i in expected]
    if expected:
        assert threshold.carried == min(scores.flatten()[i].item() for i in expected)


def test_topk_takes_k_of_every_token_above_the_floor() -> None:
    scores = torch.tensor([[5.0, 1.0, 3.0], [-1.0, -2.0, 4.0]])
    assert select_rows(scores, 2, 0.0).flat_N.tolist() == [0, 2, 5]
    assert select_rows(scores, 2, -torch.inf).flat_N.tolist() == [0, 2, 3, 5]


def test_too_few_candidates_are_no_answer() -> None:
    assert largest(Selected(torch.tensor([0, 3]), torch.ones(2)), 3) is None
