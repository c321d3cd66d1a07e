"""Packing lays rollouts end to end and batches them by length without losing or repeating one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.packing import batches_by_length, forward_kwargs, pack


def test_rollouts_stand_end_to_end_with_positions_from_zero() -> None:
    packed = pack([np.array([5, 6, 7], np.int32), np.array([8], np.int32)])
    assert packed.input_ids_1T.tolist() == [[5, 6, 7, 8]]
    assert packed.position_ids_1T.tolist() == [[0, 1, 2, 0]]
    assert packed.cu_seqlens.tolist() == [0, 3, 4]
    assert packed.lengths == (3, 1)


def test_forward_arguments_name_the_rollouts_boundaries_and_lengths() -> None:
    arguments = forward_kwargs(pack([np.arange(3), np.arange(5)]), "cpu")
    assert arguments["cu_seqlens"].tolist() == [0, 3, 8]
    assert arguments["rollout_lengths"] == (3, 5)
    assert arguments["input_ids"].shape == (1, 8)


@pytest.mark.parametrize("rollouts", [[], [np.array([], np.int32)], [np.arange(2), np.array([], np.int32)]])
def test_an_empty_rollout_is_refused(rollouts: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="empty rollout"):
        pack(rollouts)


def test_batches_are_filled_from_the_longest() -> None:
    assert batches_by_length([2, 9, 3, 3, 4], tokens_per_batch=7) == [[1], [4, 2], [3, 0]]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 80))
def test_every_rollout_is_in_one_batch_and_no_batch_of_several_is_too_large(lengths: list[int], most: int) -> None:
    batches = batches_by_length(lengths, most)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in batch) <= most for batch in batches if len(batch) > 1)
    assert batches == batches_by_length(lengths, most)
