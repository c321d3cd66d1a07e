"""What one pass changes in the adapter, and the first place in the model where that shows.

A point is half a layer: point 2L is layer L's attention, 2L + 1 its MLP. The residual stream that enters a point is the
full run's as long as nothing before it was changed.
Shapes: T tokens, R rank, O outputs of the adapted matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from resources.components import ATTENTION, Component

if TYPE_CHECKING:
    import torch


def entry_point(component: Component) -> int:
    """The point whose input is the last thing a change of this component leaves alone."""
    return 2 * component.layer + (component.projection not in ATTENTION)


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
    """At least one."""
    on_T1: "torch.Tensor | None" = None
    """bool: where the changes apply; None: everywhere."""

    @cached_property
    def entry(self) -> int:
        """The first point that differs from the full run."""
        return min(entry_point(component) for component in self.changes)


def by_entry(edits: Sequence[Edit]) -> list[Edit]:
    """Edits in the order in which a growing batch takes them up."""
    return sorted(edits, key=lambda edit: edit.entry)
