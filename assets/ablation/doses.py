"""What is steered, how hard a factor of 1 pushes, and the random direction that pushes as hard.

Shapes: T tokens, O outputs of a matrix, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from assets.ablation.activity import Firings, column_statistic, decoder_row, heaviest
from assets.ablation.adapted import AdaptedModel
from assets.ablation.config import SteeringConfig
from assets.ablation.edits import ComponentEdit, Edit
from assets.sae.artifact import Sae
from resources.components import Component
from resources.errors import BadInput
from resources.units import Unit, parse_unit

Direction = Literal["unit", "random"]


@dataclass(frozen=True)
class Target:
    """One steered unit."""

    unit: str
    p99: float
    """99th percentile of its activation: of |activation| over all tokens for a component, over firings for a latent."""
    shifts: dict[Component, float]
    """What one unit of activation adds to each component's activation."""


@dataclass(frozen=True)
class Dose:
    """One curve point."""

    target: Target
    direction: Direction
    factor: float


def choose_targets(
    steering: SteeringConfig, model: AdaptedModel, shards: Path, sae: Sae, found: Sequence[Firings]
) -> list[Target]:
    """The named units, or the strongest.

    Raises:
        BadInput: for a unit that does not exist, cannot be steered, or never fires, and when there is none.
    """
    units = list(dict.fromkeys(map(parse_unit, steering.units)))
    if not units:
        strongest = _strongest(model, shards, steering.strongest_components)
        units = [Unit("adapter", c.layer, c.projection, -1, 1) for c in strongest]
        units += [Unit("latent", -1, "", j, 1) for j in heaviest(sae, found, steering.chosen_latents)]
    if not units:
        raise BadInput(
            "steering finds nothing to steer: every B of the adapter is 0, so no component writes anything; look at "
            "its training's learning rate, or set steering.strongest_latents"
        )
    return [_target(unit, model, shards, sae, found) for unit in units]


def dose_edit(dose: Dose, steering: SteeringConfig, model: AdaptedModel, seed: int) -> Edit | None:
    """The edit of one dose; None where it changes nothing."""
    neutral = 0.0 if steering.mode == "add" else 1.0
    name = f"{dose.target.unit} ({dose.direction}) at factor {dose.factor:g}"
    if dose.factor == neutral or not dose.target.shifts:
        return None
    if steering.mode == "scale":
        return Edit(name, {c: ComponentEdit(gain=dose.factor) for c in dose.target.shifts})
    size = dose.factor * dose.target.p99
    shifts = {c: size * weight for c, weight in dose.target.shifts.items()}
    if dose.direction == "unit":
        return Edit(name, {c: ComponentEdit(shift=shift) for c, shift in shifts.items()})
    return Edit(name, {c: ComponentEdit(write_O=_random_write(model, c, shift, seed)) for c, shift in shifts.items()})


def doses(targets: Sequence[Target], steering: SteeringConfig) -> list[Dose]:
    """Every target, direction and factor; scaling has no direction, so no random control."""
    directions: tuple[Direction, ...] = ("unit", "random") if steering.mode == "add" else ("unit",)
    return [
        Dose(target, d, factor) for target in targets for d in directions for factor in dict.fromkeys(steering.factors)
    ]


def _random_write(model: AdaptedModel, component: Component, shift: float, seed: int) -> torch.Tensor:
    """A fixed random direction in the outputs of the same matrix, as long as the steered write."""
    write_O = model.write_vector(component).sum(1) * shift
    which = sorted(model.live).index(component)
    generator = torch.Generator().manual_seed(seed * 100_003 + which)
    random_O = torch.randn(len(write_O), generator=generator).to(write_O.device)
    return random_O * (write_O.norm() / random_O.norm())


def _strongest(model: AdaptedModel, shards: Path, count: int) -> list[Component]:
    live = sorted(model.live)
    p99 = column_statistic(shards, "abs_p99", live) if count else {}
    return sorted(p99, key=lambda c: -p99[c] * float(model.write_vector(c).norm()))[:count]


def _target(unit: Unit, model: AdaptedModel, shards: Path, sae: Sae, found: Sequence[Firings]) -> Target:
    if unit.kind == "latent":
        live = {c: weight for c, weight in decoder_row(sae, unit.index).items() if c in model.live}
        return Target(unit.id, _latent_p99(unit, found), live)
    component = Component(unit.layer, unit.projection)
    if component not in model.live:
        raise BadInput(f"steering.units: {unit.id} is no component of this adapter that writes anything")
    return Target(
        unit.id, column_statistic(shards, "abs_p99", [component])[component], {component: float(unit.polarity)}
    )


def _latent_p99(unit: Unit, found: Sequence[Firings]) -> float:
    values = np.concatenate([firing.value_N[firing.latent_N == unit.index] for firing in found])
    if not len(values):
        raise BadInput(f"steering.units: {unit.id} fires on none of the drawn rollouts, so it has no 99th percentile")
    return float(np.quantile(values.astype(np.float64), 0.99))
