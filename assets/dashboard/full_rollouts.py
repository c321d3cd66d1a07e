"""Every activation of a unit in the few rollouts where it fires most, for the full-text view.

Shapes: T tokens of a rollout, C columns of the shards, N sparse latent activations.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from assets.dashboard.units import UnitTable
from assets.sae.artifact import Sae
from resources.shards import Shards
from resources.units import Unit, parse_unit

FLOOR = 0.02
"""Activations below this share of the unit's maximum are not coloured, so they are not stored."""
Full = dict[str, dict[int, dict[str, list]]]
"""Unit -> rollout -> positions and signed values."""


def choose_rollouts(table: UnitTable, most: int) -> dict[int, list[str]]:
    """Rollout -> the units that show it in full: each unit's best `most` rollouts, by rank of their contexts."""
    wanted: dict[int, list[str]] = defaultdict(list)
    for unit, (first, end) in table.bounds.items():
        rows = table.contexts.slice(first, end - first)
        pairs = zip(rows["sample"].to_pylist(), rows["rollout_id"].to_pylist(), strict=True)
        best = dict.fromkeys(rollout for sample, rollout in pairs if sample == "top")
        for rollout in list(best)[:most]:
            wanted[rollout].append(unit)
    return dict(wanted)


def full_values(
    wanted: Mapping[int, Sequence[str]], maxima: Mapping[str, float], states: Shards, neurons: Shards, sae: Sae
) -> Full:
    """The activations of each wanted unit at every token of each wanted rollout."""
    full: Full = defaultdict(dict)
    state_column = {name: i for i, name in enumerate(states.columns)}
    neuron_column = {name: i for i, name in enumerate(neurons.columns)}
    for rollout, names in sorted(wanted.items()):
        units = [parse_unit(name) for name in names]
        kinds = {unit.kind for unit in units}
        state_TC = states.rollout(rollout).state_BC.astype(np.float32)
        neuron_TC = neurons.rollout(rollout).state_BC.astype(np.float32) if "neuron" in kinds else state_TC
        latents = _latents(sae, state_TC) if "latent" in kinds else {}
        for unit in units:
            if unit.kind == "latent":
                positions, values = latents.get(unit.index, (np.zeros(0, int), np.zeros(0)))
            else:
                value_T = _column(unit, state_TC, neuron_TC, state_column, neuron_column)
                positions = np.flatnonzero(np.abs(value_T) >= FLOOR * maxima[unit.id])
                values = value_T[positions]
            full[unit.id][rollout] = {"positions": positions.tolist(), "values": [float(f"{v:.3g}") for v in values]}
    return full


def _column(
    unit: Unit, state_TC: np.ndarray, neuron_TC: np.ndarray, state_column: dict[str, int], neuron_column: dict[str, int]
) -> np.ndarray:
    if unit.kind == "adapter":
        return state_TC[:, state_column[f"L{unit.layer}.{unit.projection}"]]
    return neuron_TC[:, neuron_column[f"L{unit.layer}.{unit.index}"]]


def _latents(sae: Sae, state_TC: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Latent -> (positions, values) in one rollout."""
    import torch

    found = sae.encode(torch.from_numpy(state_TC))
    row_N, latent_N, value_N = (part.numpy() for part in (found.row_N, found.latent_N, found.value_N))
    order = np.argsort(latent_N, kind="stable")
    cuts = np.flatnonzero(np.diff(latent_N[order])) + 1
    groups = np.split(order, cuts) if len(order) else []
    return {int(latent_N[group[0]]): (row_N[group], value_N[group]) for group in groups}
