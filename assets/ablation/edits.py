"""What one pass changes in the adapter, and the first place in the model where that shows.

A point is half a layer: point 2L is layer L's attention, 2L + 1 its MLP. The residual stream that enters a point is the
full run's as long as nothing before it was changed. What `o_proj` and `down_proj` put out is added to that stream, so
that a change of theirs is a write into the stream that leaves their half of the layer.
Shapes: T tokens, R rank, O outputs of the adapted matrix.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from resources.components import WRITERS, Component

if TYPE_CHECKING:
    import torch

_HALVES = {"o_proj": 1, "gate_proj": 1, "up_proj": 1, "down_proj": 2}


def entry_point(component: Component) -> int:
    """The first point that must run again when this component changes; one past the last for the last `down_proj`."""
    return 2 * component.layer + _HALVES.get(component.projection, 0)


@dataclass(frozen=True)
class ComponentEdit:
    """The activation s becomes gain * s + shift; `write_O` is added to the matrix's output beside it."""

    gain: float = 1.0
    shift: "torch.Tensor | float" = 0.0
    """One number, or [T, 1]."""
    write_O: "torch.Tensor | None" = None


ZERO = ComponentEdit(gain=0.0)
"""The component is gone."""


@dataclass(frozen=True)
class Edit:
    """One pass: the changed components, everywhere or at some tokens."""

    name: str
    """For error messages."""
    changes: Mapping[Component, ComponentEdit]
    """At least one, except in `rest`."""
    on_T1: "torch.Tensor | None" = None
    """bool: where the changes apply; None: everywhere."""

    @cached_property
    def entry(self) -> int:
        """The first point that differs from the full run."""
        return min(entry_point(component) for component in self.changes)

    @cached_property
    def writes(self) -> tuple[Component, ...]:
        """Changed components whose whole effect is a write into the stream at `entry`."""
        return tuple(c for c in self.changes if c.projection in WRITERS and entry_point(c) == self.entry)

    @cached_property
    def rest(self) -> "Edit":
        """What is left to change in a pass from `entry` on."""
        return replace(self, changes={c: change for c, change in self.changes.items() if c not in self.writes})
