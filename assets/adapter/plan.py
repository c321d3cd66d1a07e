"""Which rollouts meet in which optimiser step, who computes them, at what learning rate: fixed before the first step.

The steps depend on the config alone; how a step is divided among processes never changes its gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assets.adapter.config import TrainingConfig


@dataclass(frozen=True)
class Step:
    """One optimiser step."""

    number: int
    """From 1."""
    epoch: int
    """From 1."""
    rollout_ids: tuple[int, ...]


def plan_steps(rollout_ids: Sequence[int], training: TrainingConfig) -> list[Step]:
    """Every step of a training: each epoch in its own seeded order, its last batch short when they do not divide."""
    steps: list[Step] = []
    for epoch in range(training.epochs):
        order = np.random.default_rng([training.seed, epoch]).permutation(len(rollout_ids)).tolist()
        for begin in range(0, len(order), training.batch_size):
            batch = tuple(rollout_ids[i] for i in order[begin : begin + training.batch_size])
            steps.append(Step(len(steps) + 1, epoch + 1, batch))
    return steps


def learning_rate(step: int, num_steps: int, training: TrainingConfig) -> float:
    """Rate of step `step` (from 1); transformers' schedules, whose first warm-up step has rate 0."""
    done, warmup = step - 1, math.ceil(num_steps * training.warmup_ratio)
    if done < warmup:
        return training.learning_rate * done / warmup
    progress = (done - warmup) / (num_steps - warmup)
    factor = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return training.learning_rate * factor[training.schedule]


def divide(lengths: Sequence[int], processes: int, tokens_per_batch: int) -> list[list[list[int]]]:
    """Indices of a step's rollouts as [process][forward pass], balanced by tokens.

    Every process gets the same number of passes (sharded weights must be gathered by all together); a pass may be
    empty. None exceeds `tokens_per_batch` unless a single rollout does.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    # Never more than give each rollout a pass of its own: an empty one gathers sharded weights for nothing.
    alone = math.ceil(len(lengths) / processes)
    passes = min(alone, math.ceil(sum(lengths) / (processes * tokens_per_batch)))
    while True:
        bins = _fill(longest_first, lengths, processes * passes)
        if all(len(one) <= 1 or sum(lengths[i] for i in one) <= tokens_per_batch for one in bins):
            return [bins[process::processes] for process in range(processes)]
        passes += 1


def _fill(longest_first: Sequence[int], lengths: Sequence[int], num_bins: int) -> list[list[int]]:
    """Each rollout into the emptiest bin: at most 4/3 of the best possible longest bin (Graham 1969)."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [0] * num_bins
    for i in longest_first:
        emptiest = loads.index(min(loads))
        bins[emptiest].append(i)
        loads[emptiest] += lengths[i]
    return bins
