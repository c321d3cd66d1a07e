"""The memory account, against numbers worked out by hand and models that really exist."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from assets.adapter.config import LoraConfig
from assets.adapter.lora_model import wear_adapter
from resources.attention import use_varlen_attention
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.launcher.fit import estimate
from resources.memory import (
    GIB,
    KNOWN,
    Architecture,
    MemoryEstimate,
    Part,
    Setup,
    adapted_block,
    architecture,
    full_block,
    kv_cache,
    trained_activations,
    weights,
)
from resources.models import ModelConfig
from resources.packing import forward_kwargs, pack
from resources.stage import Needs

QWEN_32B = KNOWN["Qwen/Qwen2.5-32B-Instruct"]


def test_the_papers_model_has_its_published_size() -> None:
    """Model card: 32.5 B parameters, 31.0 B without embeddings; one replica in bf16 is 65.5 GB."""
    assert round(QWEN_32B.parameters / 1e9, 2) == 32.76
    assert round(QWEN_32B.num_hidden_layers * QWEN_32B.layer_parameters / 1e9, 1) == 31.2
    assert round(weights(QWEN_32B, "bfloat16").bytes / 1e9, 1) == 65.5


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("0.5B", 494_032_768),
        ("1.5B", 1_543_714_304),
        ("3B", 3_085_938_688),
        ("7B", 7_615_616_512),
        ("14B", 14_770_033_664),
        ("32B", 32_763_876_352),
        ("72B", 72_706_203_648),
    ],
)
def test_the_family_has_the_parameters_that_the_hub_counts_in_its_weights(size: str, parameters: int) -> None:
    assert KNOWN[f"Qwen/Qwen2.5-{size}-Instruct"].parameters == parameters


@pytest.mark.parametrize(
    ("size", "degrees"), [("0.5B", [1, 2]), ("7B", [1, 2, 4]), ("32B", [1, 2, 4, 8]), ("72B", [1, 2, 4, 8])]
)
def test_tensor_parallelism_divides_heads_and_mlp_evenly(size: str, degrees: list[int]) -> None:
    # 0.5B: 14 heads, 2 for keys, 4864 = 2^8 x 19; 7B: 28, 4, 18944 = 2^9 x 37; 72B: 64, 8, 29568 = 2^7 x 231.
    sizes = KNOWN[f"Qwen/Qwen2.5-{size}-Instruct"]
    assert [gpus for gpus in range(1, 17) if sizes.divides_among(gpus)][: len(degrees)] == degrees
    assert not sizes.divides_among(7)


def test_a_rank_1_adapter_has_one_row_and_column_per_matrix() -> None:
    # q, o: 5120 + 5120; k, v: 5120 + 1024; gate, up, down: 5120 + 27648; times 64 layers.
    assert QWEN_32B.adapter_parameters(1) == 64 * (2 * 10240 + 2 * 6144 + 3 * 32768)
    assert QWEN_32B.adapter_parameters(4) == 4 * QWEN_32B.adapter_parameters(1)


def test_parameters_and_adapter_agree_with_transformers_and_peft(tiny_model: Path, tiny_adapter: Path) -> None:
    from safetensors import safe_open

    sizes = architecture(ModelConfig(name=str(tiny_model), dtype="float32"))
    assert sizes is not None
    model = Qwen2ForCausalLM.from_pretrained(tiny_model)
    assert sizes.parameters == sum(parameter.numel() for parameter in model.parameters())
    with safe_open(tiny_adapter / "adapter_model.safetensors", "numpy") as file:
        assert sizes.adapter_parameters(1) == sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118


def test_the_kv_cache_of_one_token_is_256_kib() -> None:
    # 2 x 64 layers x 8 heads x 128 x 2 bytes.
    assert kv_cache(QWEN_32B, 1).bytes == 2 * 64 * 8 * 128 * 2 == 256 * 1024
    assert kv_cache(QWEN_32B, 1, shared_by=8).bytes == 32 * 1024


def test_computing_blocks_again_leaves_only_their_inputs() -> None:
    # An adapted block saves 2 x (6 x 5120 + 2 x 1024 + 2 x 27648) = 176,128 bytes a token; the one at work takes
    # 3 x 27648 x 2 = 165,888 more.
    block = adapted_block(QWEN_32B)
    every = trained_activations(QWEN_32B, 1000, None, block).bytes
    assert every == trained_activations(QWEN_32B, 1000, 64, block).bytes == 1000 * (64 * 5120 * 2 + 176_128 + 165_888)
    assert trained_activations(QWEN_32B, 1000, 0, block).bytes == 1000 * (65 * 176_128 + 165_888)
    assert trained_activations(QWEN_32B, 1000, 63, block).bytes == 1000 * (63 * 5120 * 2 + 2 * 176_128 + 165_888)


def test_a_block_of_transformers_saves_its_mlp_twice_and_float32_for_its_norms() -> None:
    # 2 x 5120 x 4 + 2 x (6 x 5120 + 2 x 1024 + 4 x 27648)
    assert full_block(QWEN_32B) == 327_680


@pytest.mark.parametrize("adapted", [True, False], ids=["adapted", "of transformers"])
def test_a_block_saves_what_autograd_keeps_of_it(adapted: bool) -> None:
    """Every distinct storage that autograd keeps of two layers in bf16, the weights left out."""
    sizes = Architecture(256, 1024, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, vocab_size=64)
    base = Qwen2ForCausalLM(Qwen2Config(**asdict(sizes))).bfloat16()
    model = wear_adapter(base.requires_grad_(False), LoraConfig(), "a") if adapted else base
    use_varlen_attention(model)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = 1024
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = base.model(**forward_kwargs(pack([np.zeros(tokens, np.int32)]), "cpu")).last_hidden_state
    assert hidden.requires_grad
    found = sum(tensor.untyped_storage().nbytes() for place, tensor in saved.items() if place not in weights)
    # On a CPU attention's output is copied once more, and the adapted blocks' norms keep their inputs in float32 too.
    # The final norm keeps its input and, where it is trained, the normalised one.
    block, last = (adapted_block(sizes) + 2 * 256 * 2, 4) if adapted else (full_block(sizes), 4 + 2)
    assert found == pytest.approx(tokens * (2 * (block + 256 * 2) + 256 * last), rel=0.05)


def test_what_does_not_fit_is_refused_with_the_arithmetic() -> None:
    held = MemoryEstimate((Part("small", GIB, "one"), Part("large", 130 * GIB, "64 x 2")))
    held.check("lora_checkpoint", 139)
    with pytest.raises(BadInput) as caught:
        held.check("lora_checkpoint", 137)
    assert "lora_checkpoint does not fit on a GPU of 137 GiB, of which 95% can be filled: " in str(caught.value)
    assert "large 130.0 GiB (64 x 2) + small 1.0 GiB (one) = 131.0 GiB" in str(caught.value)


def test_a_model_nobody_here_knows_is_not_guessed() -> None:
    sections = {"model": ModelConfig(name="nobody/knows", revision="0" * 40)}
    assert estimate(Needs(memory_model="resources.memory:forward"), sections, ComputeConfig(), 8) is None


def test_the_paper_fits_on_eight_h200_and_its_full_finetune_not_on_one() -> None:
    from assets.adapter.config import FullFinetuneConfig, LoraConfig
    from assets.adapter.memory import full, lora

    sections = {"model": ModelConfig(), "lora": LoraConfig(), "full_finetune": FullFinetuneConfig()}
    eight, one = (Setup(sections, QWEN_32B, ComputeConfig(), gpus) for gpus in (8, 1))
    shared, alone = full(eight), full(one)
    lora(eight).check("lora_checkpoint", 139)
    shared.check("full_finetune_checkpoint", 139)
    # 16 bytes a parameter (weight, gradient, two moments) are 524 GB.
    assert alone.bytes - shared.bytes == pytest.approx(7 / 8 * 16 * QWEN_32B.parameters)
    with pytest.raises(BadInput, match="does not fit"):
        alone.check("full_finetune_checkpoint", 139)


@pytest.mark.parametrize("section", ["lora", "full_finetune"])
def test_a_training_in_float32_keeps_tensors_of_four_bytes(section: str) -> None:
    from assets.adapter.config import FullFinetuneConfig, LoraConfig
    from assets.adapter.memory import full, lora

    account, kind = {"lora": (lora, LoraConfig), "full_finetune": (full, FullFinetuneConfig)}[section]
    bytes_of = []
    for dtype in ("bfloat16", "float32"):
        sections = {section: kind(), "model": ModelConfig(dtype=dtype)}
        found = account(Setup(sections, QWEN_32B, ComputeConfig(), 8))
        bytes_of.append({part.name: part.bytes for part in found.parts})
    half, whole = bytes_of
    # The norms' inputs of the block at work are float32 in both.
    assert whole["activations"] == pytest.approx(2 * half["activations"], rel=0.05)
    if section == "full_finetune":
        head = 152064 * 5120 * 4
        assert whole["gathered by FSDP"] - head == 2 * (half["gathered by FSDP"] - head)
