"""The parts of the adapter that are ablated, by name: from one component to all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from assets.ablation.edits import ZERO, ComponentEdit, Edit
from resources.components import ATTENTION, PROJECTIONS, Component, parse_component
from resources.errors import BadInput

Kind = Literal["component", "layer", "projection", "attention", "mlp", "group", "all", "latent", "greedy"]


@dataclass(frozen=True)
class Part:
    """One row of the table."""

    kind: Kind
    unit: str
    """`L3.gate_proj`, `L3`, `gate_proj`, `attention`, `mlp`, `L0-L7`, `all` or `latent:448`."""
    components: frozenset[Component]
    """What is ablated; empty for a latent."""
    layer: int | None = None
    projection: str | None = None
    latent: int | None = None


def catalogue(every: Sequence[Component], named: Sequence[str] | None, group_size: int) -> list[Part]:
    """Components (`named` ones, or all), layers, projections, attention, MLP, groups of layers, all.

    Raises:
        BadInput: for a component that the adapter does not have.
    """
    return [
        *[Part("component", c.id, frozenset([c]), c.layer, c.projection) for c in _singles(every, named)],
        *_layers(every),
        *_projections(every),
        *_blocks(every),
        *_groups(every, group_size),
        Part("all", "all", frozenset(every)),
    ]


def greedy_candidates(every: Sequence[Component], part: Literal["layer", "component"]) -> list[Part]:
    """What one step of the cumulative order may add."""
    return _layers(every) if part == "layer" else [Part("component", c.id, frozenset([c])) for c in every]


def removal(name: str, components: frozenset[Component], means: dict[Component, float] | None) -> Edit | None:
    """The edit that ablates components, to 0 or to their means; None where there is nothing to change."""
    if not components:
        return None
    if means is None:
        return Edit(name, dict.fromkeys(sorted(components), ZERO))
    return Edit(name, {c: ComponentEdit(gain=0.0, shift=means[c]) for c in sorted(components)})


def _singles(every: Sequence[Component], named: Sequence[str] | None) -> list[Component]:
    if named is None:
        return list(every)
    wanted = [parse_component(name) for name in named]
    missing = [c.id for c in wanted if c not in every]
    if missing:
        raise BadInput(f"ablation.components: the adapter has no {missing[0]}; it has {every[0].id} to {every[-1].id}")
    return sorted(set(wanted), key=every.index)


def _layers(every: Sequence[Component]) -> list[Part]:
    layers = sorted({c.layer for c in every})
    return [Part("layer", f"L{layer}", frozenset(c for c in every if c.layer == layer), layer) for layer in layers]


def _projections(every: Sequence[Component]) -> list[Part]:
    found = {p: frozenset(c for c in every if c.projection == p) for p in PROJECTIONS}
    return [Part("projection", p, components, projection=p) for p, components in found.items() if components]


def _blocks(every: Sequence[Component]) -> list[Part]:
    attention = frozenset(c for c in every if c.projection in ATTENTION)
    mlp = frozenset(every) - attention
    return [part for part in (Part("attention", "attention", attention), Part("mlp", "mlp", mlp)) if part.components]


def _groups(every: Sequence[Component], size: int) -> list[Part]:
    layers = sorted({c.layer for c in every})
    parts = []
    for first in range(0, layers[-1] + 1, size):
        members = frozenset(c for c in every if first <= c.layer < first + size)
        if members:
            parts.append(Part("group", f"L{first}-L{min(first + size - 1, layers[-1])}", members))
    return parts
