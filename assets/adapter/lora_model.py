"""The base model put into its adapter, and the adapter written as PEFT's files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from assets.adapter.config import LoraConfig
from assets.adapter.lora_blocks import fuse
from resources.adapters import CONFIG, WEIGHTS
from resources.errors import BadInput

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel


def wear_adapter(base: "PreTrainedModel", lora: LoraConfig, name: str) -> "PeftModel":
    """`base` with a fresh adapter (A by PEFT's Kaiming rule from the seed, B zero), only A and B trainable.

    `name` goes into the adapter's config as its base model.

    Raises:
        BadInput: when the model has not the projections, or not the layers.
    """
    import peft

    architecture: PretrainedConfig = base.config
    components = lora.components(architecture.num_hidden_layers)
    modules = {module for module, _ in base.named_modules()}
    missing = [component for component in components if component.module not in modules]
    if missing:
        raise BadInput(f"{name} has no module {missing[0].module}: use a model of the Qwen2 family")
    layers = sorted({component.layer for component in components})
    torch.manual_seed(lora.seed)
    model = peft.get_peft_model(
        base,
        peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - PEFT says int and computes with any number
            use_rslora=lora.rslora,
            lora_dropout=0.0,
            bias="none",
            target_modules=list(lora.projections),
            layers_to_transform=None if len(layers) == architecture.num_hidden_layers else layers,
            task_type="CAUSAL_LM",
        ),
    )
    model.peft_config["default"].base_model_name_or_path = name
    fuse(model)
    return model


def write_adapter(model: "PeftModel", out: Path) -> None:
    """Write the PEFT folder; the same bytes for the same weights."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    settings = model.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    (out / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in get_peft_model_state_dict(model).items()}
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
