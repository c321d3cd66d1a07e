"""The adapter's components: one scalar per (layer, projection), always in layer-major order."""

import re
from dataclasses import dataclass
from typing import Literal, TypeVar

from resources.errors import BadInput

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ATTENTION: tuple[Projection, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP: tuple[Projection, ...] = ("gate_proj", "up_proj", "down_proj")
PROJECTIONS = ATTENTION + MLP
"""Column order within a layer (paper: 7 adapted matrices per layer)."""
WRITERS = ("o_proj", "down_proj")
"""Projections whose output is added to the residual stream."""

Named = TypeVar("Named", int, Projection)
_ID = re.compile(r"L(\d+)\.([a-z]+_proj)")


@dataclass(frozen=True, order=True)
class Component:
    """One adapted matrix; its id reads `L44.gate_proj`."""

    layer: int
    projection: str

    @property
    def id(self) -> str:
        """`L<layer>.<projection>`, the name used in schemas, tables and URLs."""
        return f"L{self.layer}.{self.projection}"

    @property
    def module(self) -> str:
        """The matrix's path inside a `Qwen2ForCausalLM`."""
        block = "self_attn" if self.projection in ATTENTION else "mlp"
        return f"model.layers.{self.layer}.{block}.{self.projection}"


def components(num_layers: int) -> tuple[Component, ...]:
    """Every component of a model with `num_layers` layers, layer-major (448 for 64 layers x 7)."""
    return tuple(Component(layer, projection) for layer in range(num_layers) for projection in PROJECTIONS)


def in_model_order(named: tuple[Named, ...]) -> tuple[Named, ...]:
    """Layers or projections as a knob names them, each once: the same choice has one cache key."""
    place: dict[object, int] = {projection: i for i, projection in enumerate(PROJECTIONS)}
    return tuple(sorted(set(named), key=lambda one: place.get(one, one)))


def parse_component(text: str) -> Component:
    """The component an id such as `L44.gate_proj` names.

    Raises:
        BadInput: when the text is no component id.
    """
    found = _ID.fullmatch(text)
    if found is None or found[2] not in PROJECTIONS:
        raise BadInput(f"'{text}' is no component: write L<layer>.<projection> with one of {', '.join(PROJECTIONS)}")
    return Component(int(found[1]), found[2])
