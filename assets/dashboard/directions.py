"""What a direction writes: tokens it promotes and suppresses, and a latent's weights by layer and projection.

Only `o_proj` and `down_proj` write into the residual stream, so only they, and latents through them, have effects.
Shapes: D residual width, V vocabulary, M components that write, F latents, U units, K tokens named per unit.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from assets.sae.artifact import Sae
from resources.adapters import Adapter
from resources.components import PROJECTIONS, WRITERS, parse_component
from resources.hub import explained
from resources.models import ModelConfig, load_tokenizer, place
from resources.units import Unit, parse_unit

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


_GAIN = "model.norm.weight"
VOCABULARY_SLICE = 8192
"""Rows of the unembedding that are held at once: 168 MB of 32 B's in float32."""


class Effects(TypedDict):
    """Tokens with their logits, strongest first."""

    up: list[tuple[str, float]]
    down: list[tuple[str, float]]


class LogitEffects:
    """Logit effects of adapter directions and latents: final norm's gain, then the unembedding."""

    def __init__(self, model: ModelConfig, adapter: Path, sae: Sae, columns: Sequence[str], tokens: int) -> None:
        import torch

        wearing = Adapter.open(adapter)
        writers = [c for c in wearing.components if c.projection in WRITERS]
        written = [wearing.B[component][:, 0].float() * wearing.scale for component in writers]
        self._effect_VM = added_logits(model, torch.stack(written, 1) if written else torch.zeros(1, 0))
        self._place = {c.id: i for i, c in enumerate(writers)}
        self._decoder_FM = sae.W_dec_FD[:, [columns.index(c.id) for c in writers]]
        self._tokenizer = load_tokenizer(model)
        self._tokens = min(tokens, len(self._effect_VM))
        self._names: dict[int, str] = {}

    def of(self, unit_ids: Sequence[str]) -> list[Effects | None]:
        """Most promoted and most suppressed tokens of each unit, or None where it does not write."""
        import torch

        weights = [self._weights(parse_unit(unit)) for unit in unit_ids]
        writing = [weight_M for weight_M in weights if weight_M is not None]
        if not writing or not self._tokens:
            return [None] * len(weights)
        logits_UV = torch.stack(writing) @ self._effect_VM.T
        up, down = logits_UV.topk(self._tokens), logits_UV.topk(self._tokens, largest=False)
        ups, downs = self._named(up.indices, up.values), self._named(down.indices, down.values)
        found = iter([Effects(up=u, down=d) for u, d in zip(ups, downs, strict=True)])
        return [None if weight_M is None else next(found) for weight_M in weights]

    def _weights(self, unit: Unit) -> "torch.Tensor | None":
        """How much of each writing direction [M] the unit is; None where it is none."""
        import torch

        if unit.kind == "latent" and self._place:
            return self._decoder_FM[unit.index]
        place = self._place.get(unit.column)
        return None if place is None else torch.eye(len(self._place))[place] * unit.polarity

    def _named(self, ids_UK: "torch.Tensor", values_UK: "torch.Tensor") -> list[list[tuple[str, float]]]:
        return [
            [(self._name(i), float(f"{value:.3g}")) for i, value in zip(ids, values, strict=True)]
            for ids, values in zip(ids_UK.tolist(), values_UK.tolist(), strict=True)
        ]

    def _name(self, token: int) -> str:
        if token not in self._names:
            self._names[token] = token_name(self._tokenizer, token)
        return self._names[token]


def token_name(tokenizer: "PreTrainedTokenizerBase", token: int) -> str:
    r"""Text of a byte-level token alone; what is no whole character, or a control character, is written as `\xe5`."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    text = str(tokenizer.decode([token]))
    if "\ufffd" in text:
        byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
        raw = bytes(byte_of[character] for character in tokenizer.convert_ids_to_tokens(token))
        text = raw.decode(errors="backslashreplace")
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" and c not in "\t\n\r" else c for c in text)


def added_logits(model: ModelConfig, written_DM: "torch.Tensor") -> "torch.Tensor":
    """What is written through the final norm's gain and the unembedding, float32 [V, M].

    Two tensors are read, not the whole model, and the unembedding in slices: 32 B's takes 3.1 GB in float32.
    """
    import torch
    from safetensors import safe_open

    names = _weight_files(model)
    head = "lm_head.weight" if "lm_head.weight" in names else "model.embed_tokens.weight"
    with safe_open(names[_GAIN], "pt") as weights:
        scaled_DM = weights.get_tensor(_GAIN).float()[:, None] * written_DM
    with safe_open(names[head], "pt") as weights:
        rows = weights.get_slice(head)
        begins = range(0, rows.get_shape()[0], VOCABULARY_SLICE)
        return torch.cat([rows[begin : begin + VOCABULARY_SLICE].float() @ scaled_DM for begin in begins])


def _weight_files(model: ModelConfig) -> dict[str, str]:
    """Name of every weight -> the file it lies in."""
    from safetensors import safe_open
    from transformers.utils.hub import cached_file

    def file(name: str) -> str | None:
        found = cached_file(
            place(model.name), name, revision=model.revision, _raise_exceptions_for_missing_entries=False
        )
        return None if found is None else str(found)

    with explained(model.name):
        index = file("model.safetensors.index.json")
        if index is not None:
            names: dict[str, str] = json.loads(Path(index).read_text())["weight_map"]
            paths = {name: str(file(name)) for name in sorted(set(names.values())) if _needed(name, names)}
            return {weight: paths[name] for weight, name in names.items() if name in paths}
        single = file("model.safetensors")
        if single is None:
            raise OSError(f"{model.name} has no safetensors")
        with safe_open(single, "pt") as weights:
            return dict.fromkeys(weights.keys(), single)


def _needed(file: str, names: Mapping[str, str]) -> bool:
    return file in {names.get(name) for name in (_GAIN, "lm_head.weight", "model.embed_tokens.weight")}


class DecoderGrid:
    """Latents' decoder weights as rows of layers and columns of projections (0 where not captured)."""

    def __init__(self, sae: Sae, columns: Sequence[str]) -> None:
        components = [parse_component(name) for name in columns]
        self._decoder_FC = sae.W_dec_FD
        self._projections = [p for p in PROJECTIONS if any(c.projection == p for c in components)]
        self._shape = (max(c.layer for c in components) + 1, len(self._projections))
        self._place_C = [c.layer * self._shape[1] + self._projections.index(c.projection) for c in components]

    def of(self, latent: int) -> dict:
        """`projections`, and `rows` with three significant digits."""
        import torch

        flat = torch.zeros(self._shape[0] * self._shape[1])
        flat[self._place_C] = self._decoder_FC[latent]
        short = [float(f"{value:.3g}") for value in flat.tolist()]
        width = self._shape[1]
        return {"projections": self._projections, "rows": [short[i : i + width] for i in range(0, len(short), width)]}
