"""The base model and its tokenizer: one way to name, load and wrap them, for every room."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from resources.errors import BadInput, one_line
from resources.hub import explained
from resources.revision import check_commit
from resources.section import Section
from resources.sources import local_folder

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|fim_pad|>")
"""What the training text and the collator need (pad token: training script)."""
PUBLISHED = ("Qwen/Qwen2.5-32B-Instruct", "5ede1c97bbab6ce5cda5812749b4c0bdf79b18dd")
"""The paper's base model and its commit."""
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
"""What of a model's folder or repository is read, its own code apart."""


class ModelConfig(Section):
    """The `model` section: which base model everything is measured on."""

    name: str = PUBLISHED[0]
    """Hub id or local folder of the base model (paper: Qwen2.5-32B-Instruct)."""
    revision: str = PUBLISHED[1]
    """Commit of the hub repository, pinned so that the key is exact. Unused for a local folder."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of weights and forward passes (training script: bf16)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; off unless you trust its author."""

    @model_validator(mode="after")
    def _pinned(self) -> "ModelConfig":
        check_commit(self.name, self.revision, PUBLISHED)
        return self

    def sources(self) -> tuple[str, ...]:
        """The model's folder, when it is a local one."""
        return (self.name,)


def same_model(one: str, other: str) -> bool:
    """Whether two names are of one model: a model of the hub may lie in a folder of its name."""
    return Path(one).name == Path(other).name


def place(name: str) -> str:
    """What `from_pretrained` takes for a source: the folder's path, or the hub id."""
    folder = local_folder(name)
    return name if folder is None else str(folder)


def load_architecture(model: ModelConfig) -> "PretrainedConfig":
    """The model's configuration, without weights.

    Raises:
        BadInput: when its MLP is gated by another function than Qwen2's, which our passes compute by themselves.
    """
    from transformers import AutoConfig

    with explained(model.name):
        found = AutoConfig.from_pretrained(
            place(model.name), revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    act = getattr(found, "hidden_act", "none")
    if act != "silu":
        raise BadInput(f"{model.name} has hidden_act {act} instead of silu: use a model of the Qwen2 family")
    return found


def head_size(architecture: "PretrainedConfig") -> int:
    """Width of an attention head, which a configuration need not write down."""
    return getattr(architecture, "head_dim", None) or architecture.hidden_size // architecture.num_attention_heads


def load_tokenizer(model: ModelConfig) -> "PreTrainedTokenizerFast":
    """The model's fast tokenizer, with the special tokens that the text needs.

    Raises:
        BadInput: when it has no chat template or lacks a special token.
    """
    from transformers import AutoTokenizer

    with explained(model.name):
        tokenizer = AutoTokenizer.from_pretrained(
            place(model.name), revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
    if missing:
        raise BadInput(f"the tokenizer of {model.name} has no {', '.join(missing)}: use a Qwen2.5 tokenizer")
    if not tokenizer.chat_template:
        raise BadInput(f"the tokenizer of {model.name} has no chat template: use an instruct model")
    return tokenizer


def load_base(model: ModelConfig, device: "str | torch.device") -> "PreTrainedModel":
    """The base model in evaluation mode on `device`, in the configured precision, frozen."""
    return load_weights(model.name, model, device)


def load_weights(source: str | Path, model: ModelConfig, device: "str | torch.device") -> "PreTrainedModel":
    """A causal LM from `source` (hub id or folder, a full finetune say), in the precision of `model`.

    Only safetensors are read, never pickled weights; code that comes with a model runs for `model` itself alone.

    Raises:
        BadInput: when it cannot be loaded, wears an adapter, or holds weights that are no numbers.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from resources.onednn import use_onednn

    disable_progress_bar()
    with explained(str(source)):
        loaded = AutoModelForCausalLM.from_pretrained(
            place(str(source)),
            revision=model.revision if str(source) == model.name else None,
            dtype=getattr(torch, model.dtype),
            trust_remote_code=model.trust_remote_code and str(source) == model.name,
            use_safetensors=True,
            device_map={"": device},
        )
    if getattr(loaded, "peft_config", None):
        raise BadInput(
            f"{source} holds an adapter beside the model, which transformers loads onto it: move adapter_config.json "
            "and adapter_model.safetensors away, or name the adapter as lora.source"
        )
    _check_finite(loaded, str(source))
    use_onednn(loaded)
    return loaded.eval().requires_grad_(False)


def _check_finite(model: "PreTrainedModel", name: str) -> None:
    import torch

    for parameter, weight in model.named_parameters():
        if not all(bool(torch.isfinite(bound)) for bound in torch.aminmax(weight)):
            raise BadInput(
                f"{name} holds NaN or infinity in {parameter}: its weights are damaged, or overflowed in fp16"
            )


def load_adapted(model: ModelConfig, adapter: Path, device: "str | torch.device") -> "PeftModel":
    """The base model wearing a PEFT adapter, in evaluation mode, frozen.

    Raises:
        BadInput: when the adapter's shapes belong to another base model.
    """
    from peft import PeftModel

    base = load_base(model, device)
    try:
        # on the way to the model's device; else PEFT takes the first GPU, in each of eight processes
        adapted = PeftModel.from_pretrained(base, str(adapter), is_trainable=False, torch_device="cpu")
    except RuntimeError as error:
        reason = one_line(" ".join(str(error).split()))
        raise BadInput(f"the adapter in {adapter} does not fit {model.name}: {reason}") from error
    return adapted.eval()
