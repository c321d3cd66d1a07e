"""Order, division and learning rate: each rollout once an epoch, no pass too large, transformers' own schedules."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from assets.adapter.config import LoraConfig
from assets.adapter.plan import divide, learning_rate, plan_steps


def test_the_papers_recipe_has_315_steps_of_which_one_an_epoch_is_short() -> None:
    steps = plan_steps(range(1000), LoraConfig())
    assert len(steps) == 315
    assert [len(step.rollout_ids) for step in steps[:63]] == [16] * 62 + [8]
    assert [step.number for step in steps] == list(range(1, 316))


def test_every_epoch_has_every_rollout_once_in_an_order_of_its_own() -> None:
    steps = plan_steps([3, 5, 8, 13, 21, 34], LoraConfig(epochs=2, batch_size=4))
    epochs = [[r for step in steps if step.epoch == epoch for r in step.rollout_ids] for epoch in (1, 2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [3, 5, 8, 13, 21, 34]
    assert epochs[0] != epochs[1]
    assert steps == plan_steps([3, 5, 8, 13, 21, 34], LoraConfig(epochs=2, batch_size=4))
    assert steps != plan_steps([3, 5, 8, 13, 21, 34], LoraConfig(epochs=2, batch_size=4, seed=1))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_the_learning_rate_is_that_of_transformers(
    schedule: Literal["cosine", "linear", "constant"], warmup: float
) -> None:
    config = LoraConfig(schedule=schedule, warmup_ratio=warmup)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    steps = {0.0: 0, 0.05: 4, 0.5: 32}[warmup]  # of 63, rounded up
    name = {"constant": "constant_with_warmup"}.get(schedule, schedule)
    theirs = get_scheduler(name, optimiser, num_warmup_steps=steps, num_training_steps=63)
    for step in range(1, 64):
        assert learning_rate(step, 63, config) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        theirs.step()


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_trainings_have_a_learning_rate_too(warmup: float, steps: int) -> None:
    config = LoraConfig(learning_rate=1.0, warmup_ratio=warmup, schedule="linear")
    begin = {0.0: 1.0, 0.5: 0.0, 1.0: 0.0}[warmup]  # a warm-up's first step has rate 0
    second = {0.0: 0.5, 0.5: 1.0, 1.0: 0.5}[warmup]
    assert [learning_rate(step + 1, steps, config) for step in range(steps)] == [begin, second][:steps]


def test_rollouts_are_shared_by_tokens() -> None:
    """Loads 9 | 5+4 over two processes; 18 tokens need two passes each when a pass holds 8, and 9 stands alone."""
    assert divide([5, 9, 4], 2, 100) == [[[1]], [[0, 2]]]
    assert divide([5, 9, 4], 2, 8) == [[[1], [2]], [[0], []]]
    assert divide([5, 4], 1, 9) == [[[0, 1]]]  # a pass may be full


def test_rollouts_longer_than_a_pass_make_no_empty_passes() -> None:
    assert divide([10_000] * 4, 2, 1_000) == [[[0], [2]], [[1], [3]]]


def test_a_step_takes_no_more_passes_than_its_tokens_fill() -> None:
    assert [[len(one) for one in passes] for passes in divide([1] * 20, 2, 10)] == [[10], [10]]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 100))
def test_a_division_has_every_rollout_once_and_as_many_passes_for_every_process(
    lengths: list[int], processes: int, most: int
) -> None:
    found = divide(lengths, processes, most)
    assert len(found) == processes
    assert len({len(passes) for passes in found}) == 1
    flat = [i for passes in found for one in passes for i in one]
    assert sorted(flat) == list(range(len(lengths)))
    for passes in found:
        for one in passes:
            assert len(one) <= 1 or sum(lengths[i] for i in one) <= most
            assert [lengths[i] for i in one] == sorted((lengths[i] for i in one), reverse=True)
