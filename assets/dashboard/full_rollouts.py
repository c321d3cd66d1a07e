"""Every activation of a unit in the few rollouts where it fires most, for the full-text view.

Shapes: T tokens of a rollout up to the last that was captured, K of them captured, S of these in one row group, C
columns of the shards, U units wanted in a rollout, of which P are columns and N are latents.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from assets.dashboard.units import UnitTable
from assets.sae.artifact import Sae
from resources.shards import Shards, StateBatch
from resources.units import Unit, parse_unit

LEVELS = 127
"""Steps from 0 to the strongest activation of a rollout: colours need no more; contexts carry exact values."""

READERS = 2
"""Row groups decompressed at once."""


@dataclass(frozen=True)
class Level:
    """One unit in one rollout: activation = level / 127 * scale, with its sign."""

    scale: float
    level_T: np.ndarray
    """int8; 0 where the token was not captured."""


Full = Mapping[str, Mapping[int, Level]]
"""Unit -> rollout -> every token's activation."""
Wanted = Mapping[int, Sequence[str]]
"""Rollout -> units to show in it."""


def choose_rollouts(table: UnitTable, most: Mapping[str, int]) -> dict[int, list[str]]:
    """Each unit's best rollouts by the rank of its strongest contexts; `most`: how many, by kind of unit."""
    wanted: dict[int, list[str]] = defaultdict(list)
    for unit, kind in zip(table.columns["unit"], table.columns["kind"], strict=True):
        top = table.contexts.rollout_C[table.contexts.strongest(unit)]
        for rollout in list(dict.fromkeys(top.tolist()))[: most[kind]]:
            wanted[rollout].append(unit)
    return dict(wanted)


def full_values(wanted: Wanted, states: Shards, neurons: Shards, sae: Sae) -> Full:
    """The activations of each wanted unit at every token of each wanted rollout; every row group is read once."""
    full: dict[str, dict[int, Level]] = defaultdict(dict)
    for shards, kinds in ((states, ("adapter", "latent")), (neurons, ("neuron",))):
        mine = _only(wanted, kinds)
        for rollout, segments in groupby(_segments(shards, mine), key=lambda segment: segment[0]):
            probe = _probe(mine[rollout], shards.columns, sae)
            found = [(position_S, probe(state_SC)) for _, position_S, state_SC in segments]
            position_K, value_KU = (np.concatenate(parts) for parts in zip(*found, strict=True))
            value_TU = np.zeros((position_K[-1] + 1, value_KU.shape[1]), np.float32)
            value_TU[position_K] = value_KU
            for unit, value_T in zip(mine[rollout], value_TU.T, strict=True):
                full[unit.id][rollout] = quantised(value_T)
    return full


def quantised(value_T: np.ndarray) -> Level:
    """Activations as int8 steps of a 127th of the strongest."""
    scale = float(np.abs(value_T).max(initial=0.0))
    return Level(scale, np.rint(value_T * (LEVELS / scale if scale else 0)).astype(np.int8))


def _only(wanted: Wanted, kinds: tuple[str, ...]) -> dict[int, list[Unit]]:
    """The units of some kinds, the latents of each rollout last."""
    order = {"adapter": 0, "neuron": 0, "latent": 1}
    found = {rollout: [u for u in map(parse_unit, names) if u.kind in kinds] for rollout, names in wanted.items()}
    return {r: sorted(units, key=lambda unit: order[unit.kind]) for r, units in found.items() if units}


def _segments(shards: Shards, wanted: Mapping[int, object]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Rollout, positions [S] and float16 states [S, C] of its tokens in one row group; others are not read."""
    touched = [
        index
        for index, group in enumerate(shards.groups)
        if any(rollout in wanted for rollout in range(group.first_rollout, group.last_rollout + 1))
    ]
    for batch in _read_ahead(shards, touched):
        cuts = np.flatnonzero(np.diff(batch.rollout_id_B)) + 1
        for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(batch)], strict=True):
            if (rollout := int(batch.rollout_id_B[a])) in wanted:
                yield rollout, batch.position_B[a:b], batch.state_BC[a:b]


def _read_ahead(shards: Shards, indices: Sequence[int]) -> Iterator[StateBatch]:
    """Row groups in order; decompressing some overlaps with work on another."""
    with ThreadPoolExecutor(READERS) as pool:
        pending: deque[Future[StateBatch]] = deque()
        for index in indices:
            pending.append(pool.submit(shards.read_row_group, index))
            if len(pending) > 2 * READERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _probe(units: Sequence[Unit], columns: tuple[str, ...], sae: Sae) -> Callable[[np.ndarray], np.ndarray]:
    """States [S, C] -> activations of the units [S, U]: some columns, and only the encoder's part for some latents."""
    import torch

    plain = [columns.index(unit.column) for unit in units if unit.kind != "latent"]
    latents = torch.tensor([unit.index for unit in units if unit.kind == "latent"], dtype=torch.long)
    threshold_N, bias_N, encoder_CN = sae.threshold_F[latents], sae.b_enc_F[latents], sae.W_enc_DF[:, latents]

    def probe(state_SC: np.ndarray) -> np.ndarray:
        plain_SP = state_SC[:, plain].astype(np.float32)
        if not len(latents):
            return plain_SP
        value_SN = torch.addmm(bias_N, torch.from_numpy(state_SC).float(), encoder_CN)
        return np.hstack([plain_SP, torch.where(value_SN > threshold_N, value_SN, 0.0).numpy()])

    return probe
