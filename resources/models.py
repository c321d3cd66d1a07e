"""The base model and its tokenizer: one way to name, load and wrap them, for every room."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from resources.errors import BadInput, one_line
from resources.revision import check_commit
from resources.section import Section
from resources.sources import local_folder

if TYPE_CHECKING:
    import httpx2
    import torch
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|fim_pad|>")
"""What the training text and the collator need (pad token: training script)."""
PUBLISHED = ("Qwen/Qwen2.5-32B-Instruct", "5ede1c97bbab6ce5cda5812749b4c0bdf79b18dd")
"""The paper's base model and its commit."""


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


@cache
def _give_up_on_silent_hubs() -> None:
    """Listing a repository asks without a timeout: a hub that accepts and says nothing would be waited for forever."""
    from huggingface_hub import constants, get_session

    def limit(request: "httpx2.Request") -> None:
        waits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            what: constants.HF_HUB_DOWNLOAD_TIMEOUT if waits.get(what) is None else waits[what]
            for what in ("connect", "read", "write", "pool")
        }

    session = get_session()
    session.event_hooks = {**session.event_hooks, "request": [*session.event_hooks["request"], limit]}


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn the hub's many errors into one sentence that names the missing thing.

    Raises:
        BadInput: when `name` cannot be loaded.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    _give_up_on_silent_hubs()
    try:
        yield
    except BadInput:
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        if local_folder(name) is not None:
            raise BadInput(f"{name} is a folder but cannot be loaded: {_first_line(error)}") from error
        answered = _answer_of_the_hub(error)
        if answered is not None:
            raise BadInput(f"{name} cannot be loaded from the hub: {answered}") from error
        if isinstance(error, SafetensorError):
            raise BadInput(
                f"{name} was downloaded but its weights are damaged ({_first_line(error)}); delete it from the hub's "
                f"cache (HF_HOME) and run again"
            ) from error
        raise BadInput(
            f"{name} is neither a local folder nor whole in the local hub cache, and the hub cannot be reached or "
            f"gives damaged files ({_first_line(error)}); download it on a machine with network, or name a local folder"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[0]) if lines else type(error).__name__


def _answer_of_the_hub(error: BaseException) -> str | None:
    """What the hub said that no second try will change, from the errors behind an error; None when it said nothing."""
    from huggingface_hub import errors

    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, errors.GatedRepoError):
            return "access must be asked for on its page; then set HF_TOKEN or run `hf auth login`"
        if isinstance(behind, errors.RepositoryNotFoundError):
            return "it is not there, or private: check the name, or set HF_TOKEN"
        if isinstance(behind, errors.RevisionNotFoundError):
            return "it has no such revision: check `revision`"
        response = getattr(behind, "response", None)
        if response is not None and response.status_code >= 400:
            return f"the hub answered {response.status_code}; " + (
                "try again later" if response.status_code >= 429 else "check the name and HF_TOKEN"
            )
        behind = behind.__cause__ or behind.__context__
    return None


def place(name: str) -> str:
    """What `from_pretrained` takes for a source: the folder's path, or the hub id."""
    folder = local_folder(name)
    return name if folder is None else str(folder)


def load_architecture(model: ModelConfig) -> "PretrainedConfig":
    """The model's configuration, without weights."""
    from transformers import AutoConfig

    with explained(model.name):
        return AutoConfig.from_pretrained(
            place(model.name), revision=model.revision, trust_remote_code=model.trust_remote_code
        )


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
        BadInput: when it cannot be loaded, or holds weights that are no numbers.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

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
    _check_finite(loaded, str(source))
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
        adapted = PeftModel.from_pretrained(base, str(adapter), is_trainable=False)
    except RuntimeError as error:
        raise BadInput(f"the adapter in {adapter} does not fit {model.name}: {error}") from error
    return adapted.eval()
