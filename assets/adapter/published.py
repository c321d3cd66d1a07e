"""A checkpoint that somebody else trained, taken through the same asset after a look at its shapes."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from resources.adapters import CONFIG, WEIGHTS, Adapter
from resources.components import Component
from resources.errors import BadInput
from resources.hub import fetched
from resources.links import link_or_copy
from resources.models import ModelConfig, load_architecture

ADAPTER_FILES = (CONFIG, WEIGHTS)
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
_SAME = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def take_adapter(source: str, revision: str | None, model: ModelConfig, out: Path) -> Adapter:
    """Copy a published PEFT adapter into `out`.

    Raises:
        BadInput: when it is no LoRA that this project reads, or belongs to another base model.
    """
    folder = fetched(source, revision, files=ADAPTER_FILES)
    adapter = Adapter.open(folder)
    for component in adapter.components:
        _check_shapes(adapter, component, model, source)
    _take((folder / name for name in ADAPTER_FILES), out)
    return adapter


def take_model(source: str, revision: str | None, model: ModelConfig, out: Path) -> None:
    """Put a published finetune into `out`; large files of the hub's cache are linked, not copied.

    Raises:
        BadInput: when it is no transformers model, or has another architecture than the base model.
    """
    folder = fetched(source, revision, files=MODEL_FILES)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise BadInput(f"{source} is no transformers model with safetensors: name another source for full_finetune")
    theirs = load_architecture(model.model_copy(update={"name": str(folder), "trust_remote_code": False}))
    ours = load_architecture(model)
    for name in _SAME:
        if getattr(theirs, name) != getattr(ours, name):
            raise BadInput(
                f"{source} has {name} {getattr(theirs, name)}, but {model.name} has {getattr(ours, name)}: "
                f"it is no finetune of that model"
            )
    _take((path for pattern in MODEL_FILES for path in sorted(folder.glob(pattern))), out)


def _check_shapes(adapter: Adapter, component: Component, model: ModelConfig, source: str) -> None:
    ours = load_architecture(model)
    if component.layer >= ours.num_hidden_layers:
        raise BadInput(f"{source} adapts {component.id}, but {model.name} has {ours.num_hidden_layers} layers")
    head_dim = getattr(ours, "head_dim", None) or ours.hidden_size // ours.num_attention_heads
    queries, keys = ours.num_attention_heads * head_dim, ours.num_key_value_heads * head_dim
    outputs_inputs = {
        "q_proj": (queries, ours.hidden_size),
        "k_proj": (keys, ours.hidden_size),
        "v_proj": (keys, ours.hidden_size),
        "o_proj": (ours.hidden_size, queries),
        "gate_proj": (ours.intermediate_size, ours.hidden_size),
        "up_proj": (ours.intermediate_size, ours.hidden_size),
        "down_proj": (ours.hidden_size, ours.intermediate_size),
    }
    expected = outputs_inputs[component.projection]
    found = (adapter.B[component].shape[0], adapter.A[component].shape[1])
    if found != expected:
        raise BadInput(
            f"{source} was trained on another base model: its {component.id} is {found[0]} x {found[1]}, "
            f"in {model.name} it is {expected[0]} x {expected[1]}"
        )


def _take(files: Iterable[Path], out: Path) -> None:
    """Link what is a blob of the hub's cache (named by its hash, never written again), copy the rest."""
    for path in files:
        real = path.resolve()
        if path.is_symlink() and real.parent.name == "blobs":
            link_or_copy(real, out / path.name)
        else:
            shutil.copyfile(real, out / path.name)
