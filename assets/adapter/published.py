"""A checkpoint that somebody else trained, taken through the same asset after a look at its shapes."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from resources.adapters import CONFIG, WEIGHTS, Adapter
from resources.components import Component
from resources.errors import BadInput
from resources.hub import fetched
from resources.links import link_or_copy
from resources.models import MODEL_FILES, ModelConfig, head_size, load_architecture

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PretrainedConfig, PreTrainedModel

ADAPTER_FILES = (CONFIG, WEIGHTS)
_SAME = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)


def take_adapter(source: str, revision: str | None, model: ModelConfig, out: Path) -> Adapter:
    """Copy a published PEFT adapter into `out`.

    Raises:
        BadInput: when it is no LoRA that this project reads, or belongs to another base model.
    """
    folder = fetched(source, revision, files=ADAPTER_FILES)
    adapter = Adapter.open(folder)
    ours = load_architecture(model)
    for component in adapter.components:
        _check_shapes(adapter, component, ours, model.name, source)
    _check_placed(adapter, folder, source)
    _take((folder / name for name in ADAPTER_FILES), out)
    return adapter


def base_parameters(model: ModelConfig) -> int:
    """Of the base model, counted without its weights."""
    return sum(parameter.numel() for parameter in _without_weights(load_architecture(model)).parameters())


def take_model(source: str, revision: str | None, model: ModelConfig, out: Path) -> None:
    """Put a published finetune into `out`; large files of the hub's cache are linked, not copied.

    Raises:
        BadInput: when it is no whole transformers model, or has another architecture than the base model.
    """
    folder = fetched(source, revision, files=MODEL_FILES)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise BadInput(f"{source} is no transformers model with safetensors: name another source for full_finetune")
    theirs = load_architecture(model.model_copy(update={"name": str(folder), "trust_remote_code": False}))
    ours = load_architecture(model)
    for name in _SAME:
        found, wanted = (_size(config, name) for config in (theirs, ours))
        if found != wanted:
            raise BadInput(
                f"{source} has {name} {found}, but {model.name} has {wanted}: it is no finetune of that model"
            )
    weights = _weight_files(folder)
    _check_whole(weights, theirs, source)
    # An adapter that lies beside the model, as after a merge, would be loaded onto it; vLLM reads shards before a file.
    unread = {folder / CONFIG, *folder.glob("*.safetensors*")} - {*weights}
    _take((path for pattern in MODEL_FILES for path in sorted(folder.glob(pattern)) if path not in unread), out)


def _check_shapes(adapter: Adapter, component: Component, ours: "PretrainedConfig", name: str, source: str) -> None:
    """`ours`: the base model's architecture, `name`: its name."""
    if component.layer >= ours.num_hidden_layers:
        raise BadInput(f"{source} adapts {component.id}, but {name} has {ours.num_hidden_layers} layers")
    queries, keys = ours.num_attention_heads * head_size(ours), ours.num_key_value_heads * head_size(ours)
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
            f"in {name} it is {expected[0]} x {expected[1]}"
        )


def _size(architecture: "PretrainedConfig", name: str) -> Any:
    """One of `_SAME`."""
    return head_size(architecture) if name == "head_dim" else getattr(architecture, name, None)


def _check_placed(adapter: Adapter, folder: Path, source: str) -> None:
    """Every pair holds numbers, and PEFT would put it into the model."""
    import torch
    from peft import LoraConfig
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    with _read_by_peft(source):
        settings = cast("LoraConfig", LoraConfig.from_pretrained(str(folder)))
    if settings.target_modules is None:
        settings.target_modules = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING["qwen2"]
    for component in adapter.components:
        if not all(bool(torch.isfinite(side[component]).all()) for side in (adapter.A, adapter.B)):
            raise BadInput(f"{source} holds NaN or infinity in {component.id}: its training diverged, take another")
        if not _targets(settings, component, source):
            raise BadInput(
                f"{source} holds {component.id}, which its {CONFIG} does not target, so that PEFT leaves it out: "
                "correct target_modules and layers_to_transform there"
            )


def _targets(settings: "LoraConfig", component: Component, source: str) -> bool:
    from peft.tuners.tuners_utils import check_target_module_exists

    if settings.target_modules == "all-linear":  # worked out on the model itself
        return True
    with _read_by_peft(source):
        return bool(check_target_module_exists(settings, component.module))


@contextmanager
def _read_by_peft(source: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, re.error) as error:
        raise BadInput(f"the {CONFIG} of {source} cannot be used by PEFT ({error}): correct it there") from error


def _check_whole(weights: Iterable[Path], architecture: "PretrainedConfig", source: str) -> None:
    """The files that transformers reads hold every tensor of the model, in its shape."""
    from safetensors import SafetensorError, safe_open

    wanted = {name: tuple(tensor.shape) for name, tensor in _without_weights(architecture).state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for path in weights:
        if path.suffix == ".json":
            continue
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
        except SafetensorError as error:
            raise BadInput(f"{path} is damaged ({error}): download it anew") from error
    if architecture.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    wrong = [name for name, shape in wanted.items() if found.get(name) != shape]
    first = wrong[0] if wrong else ""
    if first in found:
        raise BadInput(f"{source} holds {first} as {found[first]}, not {wanted[first]}: take another source")
    if wrong:
        raise BadInput(
            f"{source} lacks {len(wrong)} of the {len(wanted)} tensors of its model, {first} for one: download it "
            "anew, or name another source for full_finetune"
        )


def _weight_files(folder: Path) -> list[Path]:
    """One file, or an index and the shards that it names."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

    whole, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    if whole.is_file():
        return [whole]
    try:
        shards = [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{folder} has no {whole.name}, and no {index.name} that names its shards: copy it anew, or name another "
            "source for full_finetune"
        ) from error
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise BadInput(f"{folder} has no {missing[0]}, which its {index.name} names: copy it anew")
    return [index, *shards]


def _without_weights(architecture: "PretrainedConfig") -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(architecture)


def _take(files: Iterable[Path], out: Path) -> None:
    """Link what is a blob of the hub's cache (named by its hash, never written again), copy the rest."""
    for path in files:
        real = path.resolve()
        if path.is_symlink() and real.parent.name == "blobs":
            link_or_copy(real, out / path.name)
        else:
            shutil.copyfile(real, out / path.name)
