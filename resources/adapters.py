"""A LoRA adapter as data: A and B of every component, read from PEFT's files without loading a model.

Shapes: R rank, I inputs of the adapted matrix, O its outputs. delta W = scale * B_OR @ A_RI.
"""

import json
import math
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from resources.components import PROJECTIONS, Component
from resources.errors import BadInput, told

if TYPE_CHECKING:
    import torch

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_KEY = re.compile(
    r"base_model\.model\.(?P<module>.*\.layers\.(?P<layer>\d+)\..*\.(?P<projection>\w+))\.lora_(?P<side>[AB])\.weight"
)
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts that PEFT's `LoraLayer` takes out of the base weights: A and B belong to what is left, not to the model."""


_MORE = (
    "rank_pattern",
    "alpha_pattern",
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
)
"""What PEFT adds to, or changes in, a LoRA that is A and B of one rank and one scale."""


class Settings(BaseModel, frozen=True, strict=True):
    """What is read of `adapter_config.json`; strictly, since PEFT computes with the values as they stand."""

    r: int = Field(ge=1)
    lora_alpha: float = Field(allow_inf_nan=False)
    use_rslora: bool | None = None
    base_model_name_or_path: str | None = None

    @property
    def scale(self) -> float:
        """What multiplies B @ A."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def weight_key(component: Component, side: str) -> str:
    """PEFT's name in the safetensors file of a component's matrix `side` ("A" or "B")."""
    return f"base_model.model.{component.module}.lora_{side}.weight"


@dataclass(frozen=True)
class Adapter:
    """One adapter; all components share rank and scale."""

    rank: int
    scale: float
    """What multiplies B @ A: alpha / sqrt(rank) for rsLoRA (the paper: 16), else alpha / rank."""
    A: "dict[Component, torch.Tensor]"
    """[R, I] per component, in the stored precision, on CPU."""
    B: "dict[Component, torch.Tensor]"
    """[O, R] per component."""
    base_model: str
    """Name of the base model the adapter says it was trained on; may be empty."""

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """Layer-major, projections in the order of `resources.components.PROJECTIONS`."""
        return tuple(self.A)

    @classmethod
    def open(cls, folder: Path) -> "Adapter":
        """Read a PEFT folder.

        Raises:
            BadInput: when files are missing, or it is no plain LoRA on Qwen2's projections with one rank.
        """
        settings = read_settings(folder)
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise BadInput(
                f"{folder} has no {WEIGHTS}: it is no finished PEFT adapter, nor are pickled weights (.bin) read: load "
                "it with PEFT and save it again"
            )
        sides: dict[str, dict[Component, torch.Tensor]] = {"A": {}, "B": {}}
        for key, tensor in _tensors(weights).items():
            component, side = _parse_key(key, weights)
            sides[side][component] = tensor
        if not sides["A"] or sides["A"].keys() != sides["B"].keys():
            raise BadInput(f"{weights} does not hold a pair A and B for every component")
        rank = settings.r
        wrong = [c.id for c in sides["A"] if not _has_rank(rank, sides["A"][c], sides["B"][c])]
        if wrong:
            raise BadInput(f"{weights}: {wrong[0]} is not of rank {rank}, which {CONFIG} promises for every component")
        order = sorted(sides["A"], key=_order)
        return cls(
            rank=rank,
            scale=settings.scale,
            A={component: sides["A"][component] for component in order},
            B={component: sides["B"][component] for component in order},
            base_model=settings.base_model_name_or_path or "",
        )


def read_settings(folder: Path) -> Settings:
    """`adapter_config.json` of a PEFT folder.

    Raises:
        BadInput: when it is missing, or the adapter is not a LoRA of the base model with one scale for all components.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise BadInput(f"{folder} has no {CONFIG}: name the folder of a PEFT adapter")
    try:
        settings = json.loads(path.read_bytes())
        if isinstance(settings, dict) and settings.get("peft_type") != "LORA":
            raise BadInput(f"{path}: the adapter is of type {settings.get('peft_type')}, not LORA")
        read = Settings.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise BadInput(f"{path}: {place}: {told(first)}; copy the adapter anew") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no JSON ({error}): copy the adapter anew") from error
    for name in _MORE:
        if settings.get(name):
            raise BadInput(
                f"{path} sets {name}: only a LoRA with one rank and one alpha for all components, and nothing beside "
                "it, is supported"
            )
    init = str(settings.get("init_lora_weights", ""))
    if init.lower().startswith(_CHANGES_THE_BASE):
        raise BadInput(
            f"{path} sets init_lora_weights: {init}, so it adds to changed base weights: convert it to a plain LoRA "
            "(PEFT's save_pretrained with path_initial_model_for_weight_conversion), or train one with another start"
        )
    return read


def write_ablated(source: Path, out: Path, components: Iterable[Component]) -> None:
    """Copy a PEFT folder into `out` with B = 0 for `components`, so that they add nothing.

    Raises:
        BadInput: when a component is not in the adapter.
    """
    import torch
    from safetensors.torch import save_file

    read_settings(source)
    tensors = _tensors(source / WEIGHTS)
    for component in components:
        key = weight_key(component, "B")
        if key not in tensors:
            raise BadInput(f"the adapter in {source} has no {component.id} to ablate")
        tensors[key] = torch.zeros_like(tensors[key])
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / CONFIG, out / CONFIG)
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})


def _order(component: Component) -> tuple[int, int]:
    return component.layer, PROJECTIONS.index(component.projection)


def _tensors(weights: Path) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(weights)
    except SafetensorError as error:
        raise BadInput(f"{weights} is damaged ({error}): copy the adapter anew") from error


def _has_rank(rank: int, a_RI: "torch.Tensor", b_OR: "torch.Tensor") -> bool:
    return a_RI.ndim == b_OR.ndim == 2 and a_RI.shape[0] == b_OR.shape[1] == rank


def _parse_key(key: str, weights: Path) -> tuple[Component, str]:
    found = _KEY.fullmatch(key)
    component = Component(int(found["layer"]), found["projection"]) if found else None
    if found is None or component is None or component.projection not in PROJECTIONS:
        raise BadInput(f"{weights} holds {key}, which is no LoRA matrix of a Qwen2 projection")
    if component.module != found["module"]:
        raise BadInput(f"{weights} holds {key}, whose module is not {component.module} as in Qwen2ForCausalLM")
    return component, found["side"]
