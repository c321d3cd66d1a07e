"""Sums of activations over a subset of rollouts, read from the shards (all rollouts: the contexts room has them)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from assets.categories.config import CategoriesConfig
from assets.contexts.artifact import per_unit
from resources.errors import BadInput
from resources.progress import Progress
from resources.shards import Shards
from resources.units import Unit, parse_unit


def subset_sums(
    units: list[str],
    categories: CategoriesConfig,
    max_activating_contexts: Path,
    activation_shards: Path,
    neuron_shards: Path,
    batchtopk_sae: Path,
    progress: Progress,
) -> dict[str, float]:
    """Sum of each unit's firing activations over `categories.rollouts` rollouts drawn by the seed.

    All rollouts give the `sum` of the contexts: an activation counts where it exceeds the unit's `threshold` there.

    Raises:
        BadInput: when fewer rollouts were captured.
    """
    parsed = {unit: parse_unit(unit) for unit in units}
    kinds = {unit.kind for unit in parsed.values()}
    chosen = _draw(activation_shards, categories)
    threshold = per_unit(max_activating_contexts, "threshold")
    sums: dict[str, float] = {}
    for kind, folder in (("adapter", activation_shards), ("neuron", neuron_shards)):
        if kind in kinds:
            progress.say(f"summing {kind} activations over {len(chosen)} rollouts")
            sums |= _signed_sums({u: p for u, p in parsed.items() if p.kind == kind}, threshold, folder, chosen)
    if "latent" in kinds:
        progress.say(f"summing latents over {len(chosen)} rollouts")
        total = _latent_sums(activation_shards, batchtopk_sae, chosen)
        sums |= {name: float(total[unit.index]) for name, unit in parsed.items() if unit.kind == "latent"}
    return sums


def _draw(folder: Path, categories: CategoriesConfig) -> np.ndarray:
    shards = Shards.open(folder)
    present = np.unique(np.concatenate([np.unique(shards.rollout_ids(group)) for group in range(len(shards.groups))]))
    assert categories.rollouts is not None  # the caller asks for a subset only then
    if categories.rollouts > len(present):
        raise BadInput(
            f"categories.rollouts is {categories.rollouts}, but {len(present)} rollouts were captured: lower it, or "
            "leave it out for all"
        )
    return np.random.default_rng([categories.seed, 5]).choice(present, categories.rollouts, replace=False)


def _signed_sums(
    units: dict[str, Unit], threshold: dict[str, float], folder: Path, chosen: np.ndarray
) -> dict[str, float]:
    shards = Shards.open(folder)
    place = {column: number for number, column in enumerate(shards.columns)}
    limits = {sign: np.full(len(place), np.inf, np.float32) for sign in (1, -1)}
    for name, unit in units.items():
        limits[unit.polarity][place[unit.column]] = threshold[name]
    sums = {sign: np.zeros(len(place)) for sign in limits}
    for state in _states(shards, chosen):
        for sign, limit in limits.items():
            own = sign * state
            sums[sign] += np.where(own > limit, own, 0).sum(axis=0, dtype=np.float64)
    return {name: float(sums[unit.polarity][place[unit.column]]) for name, unit in units.items()}


def _states(shards: Shards, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """float32 states of the chosen rollouts' tokens; row groups without one, most of 80 GB of neurons, stay unread."""
    for index, group in enumerate(shards.groups):
        if ((group.first_rollout <= chosen) & (chosen <= group.last_rollout)).any():
            batch = shards.read_row_group(index)
            yield batch.state_BC[np.isin(batch.rollout_id_B, chosen)].astype(np.float32)


def _latent_sums(folder: Path, sae_folder: Path, chosen: np.ndarray) -> np.ndarray:
    import torch

    from assets.sae.artifact import Sae

    sae = Sae.open(sae_folder)
    total = np.zeros(sae.d_sae)
    for state in _states(Shards.open(folder), chosen):
        latents = sae.encode(torch.from_numpy(state))
        np.add.at(total, latents.latent_N.numpy(), latents.value_N.numpy().astype(np.float64))
    return total
