"""What gets contexts, an explanation and a category: an adapter direction, a baseline neuron or an SAE latent."""

import re
from dataclasses import dataclass
from typing import Literal

from resources.components import parse_component
from resources.errors import BadInput

Kind = Literal["adapter", "neuron", "latent"]
SPOKEN: dict[Kind, str] = {"adapter": "adapter directions", "latent": "SAE latents", "neuron": "baseline neurons"}
"""How figures call the kinds, in the order of the paper's figure 1."""
_SIGN = {1: "+", -1: "-"}
_ID = re.compile(
    r"(?:adapter:(?P<component>[^:]+):(?P<asign>[+-])|neuron:L(?P<layer>\d+)\.(?P<neuron>\d+):(?P<nsign>[+-])|latent:(?P<latent>\d+))"
)


@dataclass(frozen=True, order=True)
class Unit:
    """One interpretable unit. Directions and neurons come in both polarities, latents only in the positive."""

    kind: Kind
    layer: int
    """-1 for latents."""
    projection: str
    """Empty for neurons and latents."""
    index: int
    """Neuron or latent number; -1 for adapter directions."""
    polarity: int
    """+1 or -1: the sign of the activations that count as firing."""

    @property
    def column(self) -> str:
        """Its column of the shards, `L3.gate_proj` or `L2.17`; a latent has none."""
        return f"L{self.layer}.{self.projection or self.index}"

    @property
    def id(self) -> str:
        """`adapter:L3.gate_proj:+`, `neuron:L2.17:-` or `latent:448`."""
        if self.kind == "latent":
            return f"latent:{self.index}"
        return f"{self.kind}:{self.column}:{_SIGN[self.polarity]}"


def parse_unit(text: str) -> Unit:
    """The unit an id names.

    Raises:
        BadInput: when the text is no unit id.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise BadInput(f"'{text}' is no unit: write adapter:L3.gate_proj:+, neuron:L2.17:- or latent:448")
    if found["component"]:
        component = parse_component(found["component"])
        return Unit("adapter", component.layer, component.projection, -1, 1 if found["asign"] == "+" else -1)
    if found["neuron"]:
        return Unit("neuron", int(found["layer"]), "", int(found["neuron"]), 1 if found["nsign"] == "+" else -1)
    return Unit("latent", -1, "", int(found["latent"]), 1)
