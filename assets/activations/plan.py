"""Which tokens go into which shard: fixed by dataset and config alone, never by the number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from assets.activations.config import Positions
from assets.dataset.artifact import S1kDataset
from resources.errors import BadInput
from resources.packing import grouped


@dataclass(frozen=True)
class Reading:
    """One rollout as the model reads it, and what is kept of it."""

    rollout_id: int
    token_ids: np.ndarray
    """int32[T], cut to the model's context."""
    kept: np.ndarray
    """Positions whose scalars are stored, ascending."""


@dataclass(frozen=True)
class ShardPlan:
    """The rollouts of one shard, in order, all of them whole."""

    index: int
    readings: tuple[Reading, ...]

    @cached_property
    def num_rows(self) -> int:
        """Tokens stored."""
        return sum(len(reading.kept) for reading in self.readings)

    @cached_property
    def first_rows(self) -> np.ndarray:
        """Row of each rollout's first stored token."""
        return np.cumsum([0] + [len(reading.kept) for reading in self.readings])[:-1]

    def ids(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rollout_id, position and token_id of every row, int32."""
        counts = [len(reading.kept) for reading in self.readings]
        rollouts = np.repeat([reading.rollout_id for reading in self.readings], counts).astype(np.int32)
        positions = np.concatenate([reading.kept for reading in self.readings]).astype(np.int32)
        tokens = np.concatenate([reading.token_ids[reading.kept] for reading in self.readings])
        return rollouts, positions, tokens.astype(np.int32)


@dataclass(frozen=True)
class Plan:
    """All shards of one capture."""

    shards: tuple[ShardPlan, ...]
    rollouts_cut: int
    """Rollouts longer than the model's context."""
    tokens_cut: int
    """Tokens beyond it, never read."""

    @property
    def num_rows(self) -> int:
        """Tokens stored in all shards."""
        return sum(shard.num_rows for shard in self.shards)


def plan_shards(dataset: S1kDataset, positions: Positions, shard_rows: int, context: int) -> Plan:
    """Fill shards with whole rollouts in order, each up to `shard_rows` tokens; `context`: tokens the model can read.

    Raises:
        BadInput: when no token is left to store.
    """
    readings = [_reading(dataset, rollout, positions, context) for rollout in dataset.rollout_ids]
    readings = [reading for reading in readings if len(reading.kept)]
    if not readings:
        raise BadInput(f"{dataset.path} has no token to capture with positions: {positions}")
    excess = [max(0, dataset.lengths[rollout] - context) for rollout in dataset.rollout_ids]
    return Plan(tuple(filled(readings, shard_rows)), sum(cut > 0 for cut in excess), sum(excess))


def _reading(dataset: S1kDataset, rollout: int, positions: Positions, context: int) -> Reading:
    token_ids = dataset.token_ids(rollout)[:context]
    mask = dataset.loss_mask(rollout)[:context] if positions == "assistant" else np.ones(len(token_ids), bool)
    return Reading(rollout, token_ids, np.flatnonzero(mask))


def filled(readings: Sequence[Reading], shard_rows: int) -> list[ShardPlan]:
    """Shards of up to `shard_rows` tokens, more where a single rollout has more."""
    groups = grouped(range(len(readings)), [len(reading.kept) for reading in readings], shard_rows)
    return [ShardPlan(index, tuple(readings[i] for i in group)) for index, group in enumerate(groups)]
