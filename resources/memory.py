"""What a job will hold on one GPU, added up before it is launched, in terms that a person can check by hand.

Knows no room: a room's memory model picks its parts from here. P parameters, h hidden size, L layers, V vocabulary.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from resources.compute import ComputeConfig
from resources.errors import BadInput, one_line
from resources.models import ModelConfig
from resources.section import Kind, Sections, section_of
from resources.sources import local_folder

GIB = 2**30
USABLE = 0.95
"""Share of a GPU that a job may fill by this account; the rest is for CUDA, NCCL and the allocator's fragments."""

BYTES = {"float32": 4, "bfloat16": 2}
CHUNK_ELEMENTS = 2**26
"""Logits of one chunk of the cross-entropy: 256 MiB in float32, 441 tokens of Qwen2.5's vocabulary."""


@dataclass(frozen=True)
class Architecture:
    """A Qwen2's sizes, as in its config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32768
    """Longest text, tokens (Qwen2.5's, and transformers' default)."""

    @property
    def kv_size(self) -> int:
        """Width of all keys, or of all values, of one token and layer."""
        return self.hidden_size // self.num_attention_heads * self.num_key_value_heads

    @property
    def layer_parameters(self) -> int:
        """Of one block: attention with its three biases, MLP, two norms."""
        attention = 2 * self.hidden_size**2 + 2 * self.hidden_size * self.kv_size + self.hidden_size + 2 * self.kv_size
        return attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        tables = 1 if self.tie_word_embeddings else 2
        words = tables * self.vocab_size * self.hidden_size
        return self.num_hidden_layers * self.layer_parameters + words + self.hidden_size

    def divides_among(self, gpus: int) -> bool:
        """Whether tensor parallelism can: heads and MLP evenly; keys and values evenly, or whole copies of each."""
        kv, whole = self.num_key_value_heads, (self.num_attention_heads, self.intermediate_size)
        return not any(size % gpus for size in whole) and (kv % gpus == 0 or gpus % kv == 0)

    def adapter_parameters(self, rank: int) -> int:
        """Of a LoRA on all seven matrices of every layer."""
        h, i, kv = self.hidden_size, self.intermediate_size, self.kv_size
        ends = (h + h) + 2 * (h + kv) + (h + h) + 2 * (h + i) + (i + h)
        return rank * self.num_hidden_layers * ends


KNOWN = {
    "Qwen/Qwen2.5-0.5B-Instruct": Architecture(896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True),
    "Qwen/Qwen2.5-1.5B-Instruct": Architecture(1536, 8960, 28, 12, 2, 151936, tie_word_embeddings=True),
    "Qwen/Qwen2.5-3B-Instruct": Architecture(2048, 11008, 36, 16, 2, 151936, tie_word_embeddings=True),
    "Qwen/Qwen2.5-7B-Instruct": Architecture(3584, 18944, 28, 28, 4, 152064),
    "Qwen/Qwen2.5-14B-Instruct": Architecture(5120, 13824, 48, 40, 8, 152064),
    "Qwen/Qwen2.5-32B-Instruct": Architecture(5120, 27648, 64, 40, 8, 152064),
    "Qwen/Qwen2.5-72B-Instruct": Architecture(8192, 29568, 80, 64, 8, 152064),
}
"""The paper's model and its family, so that a plan can be reviewed without network (their config.json on the hub)."""


def architecture(model: ModelConfig) -> Architecture | None:
    """The sizes of a base model from its folder, the hub's local cache or the table above; None when unknown here.

    Raises:
        BadInput: when its config.json is damaged, or that of another kind of model.
    """
    if model.name in KNOWN:
        return KNOWN[model.name]
    path = _config_file(model)
    if path is None:
        return None
    try:
        return _sizes(json.loads(path.read_text()))
    except (ValueError, TypeError, OSError) as error:
        raise BadInput(f"{path} is not the config.json of a Qwen2 model: {one_line(str(error))}") from error


@dataclass(frozen=True)
class Setup:
    """What the memory of a stage depends on."""

    sections: Sections
    sizes: Architecture
    compute: ComputeConfig
    gpus: int

    def knobs(self, kind: type[Kind]) -> Kind:
        """The experiment's section of that kind."""
        return section_of(self.sections, kind)

    @property
    def model(self) -> ModelConfig:
        """The base model."""
        return self.knobs(ModelConfig)


def _sizes(read: Mapping[str, object]) -> Architecture:
    """Raises TypeError when one is missing or no integer."""
    sizes = {name: read[name] for name in (field.name for field in fields(Architecture)) if name in read}
    lacking = {field.name for field in fields(Architecture) if field.default is MISSING} - set(sizes)
    if lacking:
        raise TypeError(f"it lacks {', '.join(sorted(lacking))}")
    wrong = next((name for name, value in sizes.items() if not isinstance(value, int)), None)
    if wrong is not None:
        raise TypeError(f"its {wrong} is no integer")
    return Architecture(**sizes)  # pyright: ignore[reportArgumentType] - checked above


def _config_file(model: ModelConfig) -> Path | None:
    folder = local_folder(model.name)
    if folder is not None:
        path = folder / "config.json"
        return path if path.exists() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.name, "config.json", revision=model.revision)
    return Path(found) if isinstance(found, str) else None


@dataclass(frozen=True)
class Part:
    """One thing that lies in a GPU's memory."""

    name: str
    bytes: float
    how: str
    """The arithmetic."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What one rank, or a job's disk, holds at its worst moment."""

    parts: tuple[Part, ...]

    @property
    def bytes(self) -> float:
        """Of all parts."""
        return sum(part.bytes for part in self.parts)

    def explain(self) -> str:
        """`part 61.0 GiB (how) + ... = total`, largest first."""
        ordered = sorted(self.parts, key=lambda part: -part.bytes)
        terms = [f"{part.name} {part.bytes / GIB:.1f} GiB ({part.how})" for part in ordered]
        return f"{' + '.join(terms)} = {self.bytes / GIB:.1f} GiB"

    def check(self, what: str, gpu_gib: float) -> None:
        """Refuse a job that cannot fit.

        Raises:
            BadInput: with the arithmetic.
        """
        if self.bytes > USABLE * gpu_gib * GIB:
            raise BadInput(
                f"{what} does not fit on a GPU of {gpu_gib:g} GiB, of which {USABLE:.0%} can be filled: "
                f"{self.explain()}; "
                f"lower compute.tokens_per_batch or whatever makes its largest part, or use more or larger GPUs"
            )


def weights(sizes: Architecture, dtype: str, shared_by: int = 1) -> Part:
    """The model's weights, whole or divided among GPUs."""
    divided = f" / {shared_by} GPUs" if shared_by > 1 else ""
    how = f"{sizes.parameters / 1e9:.2f} B parameters x {BYTES[dtype]} bytes{divided}"
    return Part("weights", sizes.parameters * BYTES[dtype] / shared_by, how)


def adam(parameters: float, shared_by: int = 1) -> Part:
    """Gradient and both moments of what is trained, float32."""
    divided = f" / {shared_by} GPUs" if shared_by > 1 else ""
    how = f"{parameters / 1e9:.3f} B trained x (4 gradient + 8 Adam) bytes{divided}"
    return Part("gradients and optimiser", parameters * 12 / shared_by, how)


def trained_activations(sizes: Architecture, tokens: int, recomputed: int | None, block: int, item: int = 2) -> Part:
    """What the backward pass needs: inputs of the recomputed blocks, the other blocks whole, and one block at work.

    `block`: bytes that a block keeps of one token, by `adapted_block` or `full_block`.
    """
    again = sizes.num_hidden_layers if recomputed is None else min(recomputed, sizes.num_hidden_layers)
    whole = sizes.num_hidden_layers - again
    gradients = 3 * sizes.intermediate_size * item
    kept = again * sizes.hidden_size * item + (whole + 1) * block + gradients
    how = f"{tokens} tokens: inputs of {again} blocks, {whole} + 1 whole blocks, 3 wide gradients, {item} bytes"
    return Part("activations", tokens * kept, how)


def adapted_block(sizes: Architecture, item: int = 2) -> int:
    """Bytes a token that a block keeps for its backward pass when its adapter alone is trained, on a GPU.

    Both norms' inputs and outputs, queries and attention's output; keys and values; gate and up of the MLP
    (`assets/adapter/lora_blocks.py` keeps no more).
    """
    return item * (6 * sizes.hidden_size + 2 * sizes.kv_size + 2 * sizes.intermediate_size)


def full_block(sizes: Architecture, item: int = 2) -> int:
    """Bytes a token that a block of transformers keeps for its backward pass when all of it is trained.

    The norms' inputs in float32, and normalised; both norms' outputs, queries and attention's output; keys and values;
    and four wide tensors of the MLP: gate, its activation, up and their product.
    """
    narrow = 6 * sizes.hidden_size + 2 * sizes.kv_size
    return 2 * sizes.hidden_size * 4 + item * (narrow + 4 * sizes.intermediate_size)


def passing_activations(sizes: Architecture, tokens: int, item: int = 2) -> Part:
    """One block at a time: nothing is kept for a backward pass."""
    # norms (one in float32), queries, keys, values, attention output, and the three wide tensors alive at once
    width = 8 * sizes.hidden_size + 2 * sizes.kv_size + 3 * sizes.intermediate_size
    return Part("activations", tokens * item * width, f"one block of {tokens} tokens, {item} bytes")


def loss_chunk(sizes: Architecture) -> Part:
    """The chunked cross-entropy: one chunk of logits in float32, its copy in half precision, and their exponentials."""
    tokens = CHUNK_ELEMENTS // sizes.vocab_size
    return Part("loss", 10 * CHUNK_ELEMENTS, f"{tokens} tokens x {sizes.vocab_size} x (4 + 4 + 2) bytes")


def gathered(sizes: Architecture, item: int = 2) -> Part:
    """FSDP2's whole tensors of the moment: two blocks, both word tables, and the head's float32 gradient."""
    words = sizes.vocab_size * sizes.hidden_size
    size = (2 * sizes.layer_parameters + 2 * words) * item + words * 4
    how = f"2 blocks and 2 word tables x {item} bytes, the head's gradient x 4 bytes"
    return Part("gathered by FSDP", size, how)


def kv_cache(sizes: Architecture, tokens: int, shared_by: int = 1) -> Part:
    """Keys and values of every layer, in half precision."""
    size = 2 * sizes.num_hidden_layers * sizes.kv_size * tokens * 2 / shared_by
    how = f"2 x {sizes.num_hidden_layers} layers x {sizes.kv_size} x {tokens} tokens x 2 bytes / {shared_by} GPUs"
    return Part("KV cache", size, how)


def forward(on: Setup) -> MemoryEstimate:
    """Memory model of stages that only read the model: one replica per GPU, logits in slices."""
    sizes, dtype, tokens = on.sizes, on.model.dtype, on.compute.tokens_per_batch
    item = BYTES[dtype]
    stream = Part(
        "residual stream", 2 * tokens * sizes.hidden_size * item, f"2 x {tokens} tokens x {sizes.hidden_size}"
    )
    return MemoryEstimate((weights(sizes, dtype), passing_activations(sizes, tokens, item), stream))
