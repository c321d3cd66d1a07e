"""What a direction writes: tokens it promotes and suppresses, and a latent's weights by layer and projection.

Only `o_proj` and `down_proj` write into the residual stream, so only they, and latents through them, have effects.
Shapes: D residual width, V vocabulary, M components that write, F latents, C components.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assets.sae.artifact import Sae
from resources.adapters import Adapter
from resources.components import PROJECTIONS, parse_component
from resources.models import ModelConfig, load_base, load_tokenizer
from resources.units import parse_unit

if TYPE_CHECKING:
    import torch

WRITERS = ("o_proj", "down_proj")
Effects = dict[str, list[tuple[str, float]]]


class LogitEffects:
    """Logit effects of adapter directions and latents: final norm's gain, then the unembedding."""

    def __init__(self, model: ModelConfig, adapter: Path, sae: Sae, columns: Sequence[str], tokens: int) -> None:
        import torch

        base = load_base(model, "cpu")
        wearing = Adapter.open(adapter)
        writers = [c for c in wearing.components if c.projection in WRITERS]
        written_DM = torch.stack([wearing.B[c][:, 0].float() for c in writers], dim=1) * wearing.scale
        gain_D = base.get_submodule("model.norm").get_parameter("weight").float()
        unembedding_VD = base.get_submodule("lm_head").get_parameter("weight").float()
        self._effect_VM: torch.Tensor = unembedding_VD @ (gain_D[:, None] * written_DM)
        self._place = {c.id: i for i, c in enumerate(writers)}
        self._column = [self._place.get(name, -1) for name in columns]
        self._decoder_FC = sae.W_dec_FD
        self._tokenizer = load_tokenizer(model)
        self._tokens = tokens

    def of(self, unit_id: str) -> Effects | None:
        """Most promoted and most suppressed tokens, or None where the unit does not write."""
        unit = parse_unit(unit_id)
        if unit.kind == "latent":
            return self._top(self._latent_logits(unit.index))
        place = self._place.get(f"L{unit.layer}.{unit.projection}") if unit.kind == "adapter" else None
        return None if place is None else self._top(self._effect_VM[:, place] * unit.polarity)

    def _latent_logits(self, latent: int) -> "torch.Tensor":
        import torch

        weights_M = torch.zeros(len(self._place))
        for column, place in enumerate(self._column):
            if place >= 0:
                weights_M[place] = self._decoder_FC[latent, column]
        return self._effect_VM @ weights_M

    def _top(self, logits_V: "torch.Tensor") -> Effects:
        count = min(self._tokens, len(logits_V))
        up, down = logits_V.topk(count), logits_V.topk(count, largest=False)
        return {"up": self._named(up.indices, up.values), "down": self._named(down.indices, down.values)}

    def _named(self, ids: "torch.Tensor", values: "torch.Tensor") -> list[tuple[str, float]]:
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        return [(str(self._tokenizer.decode([i])), float(f"{value:.3g}")) for i, value in pairs]


def decoder_grid(sae: Sae, columns: Sequence[str], latent: int) -> dict:
    """A latent's decoder weights as rows of layers and columns of projections (0 where not captured)."""
    weights = dict(zip(map(parse_component, columns), sae.W_dec_FD[latent].tolist(), strict=True))
    projections = [p for p in PROJECTIONS if any(c.projection == p for c in weights)]
    layers = range(max(c.layer for c in weights) + 1)
    by_place = {(c.layer, c.projection): float(f"{value:.3g}") for c, value in weights.items()}
    return {"projections": projections, "rows": [[by_place.get((i, p), 0.0) for p in projections] for i in layers]}
