"""Every activation of a unit in the few rollouts where it fires most, for the full-text view.

Shapes: T tokens of a rollout, C columns of the shards, N latents wanted in a rollout.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from assets.dashboard.units import UnitTable
from assets.sae.artifact import Sae
from resources.shards import Shards, StateBatch
from resources.units import Unit, parse_unit

LEVELS = 127
"""Steps from 0 to the strongest activation of a rollout: colours need no more; contexts carry exact values."""

READERS = 2
"""Shards read at once."""


@dataclass(frozen=True)
class Level:
    """One unit in one rollout: activation = level / 127 * scale, with its sign."""

    scale: float
    level_T: np.ndarray
    """int8."""


Full = Mapping[str, Mapping[int, Level]]
"""Unit -> rollout -> every token's activation."""
Wanted = Mapping[int, Sequence[str]]
"""Rollout -> units to show in it."""


def choose_rollouts(table: UnitTable, most: Mapping[str, int]) -> dict[int, list[str]]:
    """Each unit's best rollouts by the rank of its strongest contexts; `most`: how many, by kind of unit."""
    wanted: dict[int, list[str]] = defaultdict(list)
    contexts = table.contexts
    for unit, kind in zip(table.columns["unit"], table.columns["kind"], strict=True):
        first, end = contexts.bounds.get(unit, (0, 0))
        top = contexts.rollout_C[first:end][contexts.sample_C[first:end] == 0]
        for rollout in list(dict.fromkeys(top.tolist()))[: most[kind]]:
            wanted[rollout].append(unit)
    return dict(wanted)


def full_values(wanted: Wanted, states: Shards, neurons: Shards, sae: Sae) -> Full:
    """The activations of each wanted unit at every token of each wanted rollout; every shard is read once."""
    full: dict[str, dict[int, Level]] = defaultdict(dict)
    of_states = _only(wanted, ("adapter", "latent"))
    for rollout, state_TC in _rollouts(states, of_states):
        units = of_states[rollout]
        values = {unit.id: state_TC[:, states.columns.index(_column(unit))] for unit in units if unit.kind == "adapter"}
        values |= _latents(sae, state_TC, [unit for unit in units if unit.kind == "latent"])
        for unit, value_T in values.items():
            full[unit][rollout] = quantised(value_T)
    of_neurons = _only(wanted, ("neuron",))
    for rollout, value_TC in _rollouts(neurons, of_neurons):
        for unit in of_neurons[rollout]:
            full[unit.id][rollout] = quantised(value_TC[:, neurons.columns.index(_column(unit))])
    return full


def quantised(value_T: np.ndarray) -> Level:
    """Activations as int8 steps of a 127th of the strongest."""
    value_T = value_T.astype(np.float32)
    scale = float(np.abs(value_T).max(initial=0.0))
    return Level(scale, np.rint(value_T * (LEVELS / scale if scale else 0)).astype(np.int8))


def _only(wanted: Wanted, kinds: tuple[str, ...]) -> dict[int, list[Unit]]:
    found = {rollout: [u for u in map(parse_unit, names) if u.kind in kinds] for rollout, names in wanted.items()}
    return {rollout: units for rollout, units in found.items() if units}


def _rollouts(shards: Shards, wanted: Mapping[int, object]) -> Iterator[tuple[int, np.ndarray]]:
    """float16 states [T, C] of the wanted rollouts, in order; shards without one are not read."""
    for batch in _read_ahead(shards, [i for i in range(len(shards.paths)) if _holds(shards, i, wanted)]):
        cuts = np.flatnonzero(np.diff(batch.rollout_id_B)) + 1
        for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(batch)], strict=True):
            if (rollout := int(batch.rollout_id_B[a])) in wanted:
                yield rollout, batch.state_BC[a:b]


def _holds(shards: Shards, index: int, wanted: Mapping[int, object]) -> bool:
    groups = [group for group in shards.groups if group.path == shards.paths[index]]
    return any(groups[0].first_rollout <= rollout <= groups[-1].last_rollout for rollout in wanted)


def _read_ahead(shards: Shards, indices: Sequence[int]) -> Iterator[StateBatch]:
    """Whole shards in order; decompressing one overlaps with work on the other, three are in memory at most."""
    with ThreadPoolExecutor(READERS) as pool:
        pending: deque[Future[StateBatch]] = deque()
        for index in indices:
            pending.append(pool.submit(shards.read_shard, index))
            if len(pending) > READERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _column(unit: Unit) -> str:
    return f"L{unit.layer}.{unit.projection if unit.kind == 'adapter' else unit.index}"


def _latents(sae: Sae, state_TC: np.ndarray, units: Sequence[Unit]) -> dict[str, np.ndarray]:
    """Only the wanted latents: a few of thousands, so a few columns of the encoder."""
    import torch

    if not units:
        return {}
    index_N = torch.tensor([unit.index for unit in units])
    state_TC32 = torch.from_numpy(state_TC).float()
    value_TN = torch.addmm(sae.b_enc_F[index_N], state_TC32, sae.W_enc_DF[:, index_N])
    value_TN = torch.where(value_TN > sae.threshold_F[index_N], value_TN, 0.0)
    return {unit.id: value_TN[:, i].numpy() for i, unit in enumerate(units)}
