"""The adapted model's fused blocks: what PEFT and transformers compute, and how little is computed again."""

from typing import Any

import peft
import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2MLP, Qwen2RMSNorm

from assets.adapter import lora_blocks
from assets.adapter.lora_blocks import fuse
from assets.adapter.lora_linear import add_product_
from tests.claimed_gpu import GPU, claim, claimed_gpu

CONFIG: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 32,
                          "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip


def mlp(rank: int, *targets: str, dtype: torch.dtype = torch.float32, **patterns: dict[str, int]) -> Qwen2MLP:
    """A random MLP whose adapter, in float32, does something; `patterns`: PEFT's, of matrices that differ."""
    torch.manual_seed(0)
    base = Qwen2ForCausalLM(Qwen2Config(**CONFIG)).to(dtype)  # pyright: ignore[reportArgumentType]
    lora = peft.LoraConfig(r=rank, target_modules=list(targets), use_rslora=True, **patterns)  # pyright: ignore[reportArgumentType]
    model = peft.get_peft_model(base, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    block = base.model.layers[0].mlp
    assert isinstance(block, Qwen2MLP)
    return block


def output_and_gradients(block: Qwen2MLP, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    out = block(x)
    out.sin().sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, *[weight.grad for weight in block.parameters() if weight.grad is not None]]


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("targets", [("gate_proj", "up_proj", "down_proj"), ("down_proj",), ("up_proj",)])
def test_a_fused_mlp_gives_pefts_output_and_gradients(rank: int, targets: tuple[str, ...]) -> None:
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    plain, fused = mlp(rank, *targets), mlp(rank, *targets)
    fuse(fused)
    expected, found = output_and_gradients(plain, x), output_and_gradients(fused, x)
    assert len(found) == 2 + 2 * len(targets)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("targets", [("gate_proj", "up_proj", "down_proj"), ("down_proj", "up_proj"), ("down_proj",)])
def test_a_fused_mlp_gives_them_on_a_gpu_too_by_kernels_where_gate_and_up_are_adapted_by_rank_one(
    rank: int, targets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = pytest.importorskip("assets.adapter.gated_kernels", reason="triton is made for Linux alone")
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(lora_blocks, "is_usable", lambda _: True)
    plain, fused = mlp(rank, *targets), mlp(rank, *targets)
    fuse(fused)
    calls, gated = [], kernels.gated
    monkeypatch.setattr(kernels, "gated", lambda gate: (calls.append(gate), gated(gate))[1])
    expected = output_and_gradients(plain, x)
    with claimed_gpu():
        claim(fused)
        found = [tensor.cpu() for tensor in output_and_gradients(fused, x.to(GPU))]
    assert len(calls) == (rank == 1 and len(targets) == 3)
    assert len(found) == 2 + 2 * len(targets)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("odd", ["gate_proj", "up_proj", "down_proj"])
def test_one_matrix_of_another_rank_keeps_an_mlp_from_the_kernels(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(lora_blocks, "is_usable", lambda _: True)
    plain, fused = (mlp(1, "gate_proj", "up_proj", "down_proj", rank_pattern={odd: 2}) for _ in range(2))
    fuse(fused)
    expected = output_and_gradients(plain, x)
    with claimed_gpu():
        claim(fused)
        found = [tensor.cpu() for tensor in output_and_gradients(fused, x.to(GPU))]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_take_every_matrix_by_its_own_scale_and_a_model_of_bfloat16(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against PEFT, which rounds more often on its way."""
    pytest.importorskip("triton", reason="triton is made for Linux alone")
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    monkeypatch.setattr(lora_blocks, "is_usable", lambda _: True)
    alphas = {"gate_proj": 3, "up_proj": 5, "down_proj": 7}
    plain, fused = (mlp(1, *alphas, dtype=dtype, alpha_pattern=alphas) for _ in range(2))
    fuse(fused)
    expected = output_and_gradients(plain, x)
    with claimed_gpu():
        claim(fused)
        found = [tensor.cpu() for tensor in output_and_gradients(fused, x.to(GPU))]
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def test_on_a_cpu_an_mlp_does_without_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_blocks, "is_usable", lambda _: True)
    monkeypatch.setattr(lora_blocks._GateOfRankOne, "apply", None)
    block = mlp(1, "gate_proj", "up_proj", "down_proj")
    fuse(block)
    assert block(torch.randn(2, 5, 16)).shape == (2, 5, 16)


@pytest.mark.parametrize("usable", [False, True])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_attention_under_a_mask_is_transformers_and_turned_by_liger_kernel_on_a_gpu_alone(
    on_gpu: bool, usable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rope = pytest.importorskip("liger_kernel.ops.rope", reason="triton is made for Linux alone").LigerRopeFunction
    calls, rotate = [], rope.apply
    monkeypatch.setattr(rope, "apply", lambda *given: (calls.append(given), rotate(*given))[1])
    monkeypatch.setattr(lora_blocks, "is_usable", lambda _: usable)
    torch.manual_seed(0)
    config = Qwen2Config(**dict(CONFIG, attn_implementation="sdpa"))
    base = Qwen2ForCausalLM(config).eval().model
    attention, x = base.layers[0].self_attn, torch.randn(2, 5, 16)
    assert isinstance(attention, Qwen2Attention)
    turns = base.rotary_emb(x, torch.arange(5)[None])
    sees = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    sees |= torch.eye(5, dtype=torch.bool)
    with torch.no_grad():
        expected = attention(x, turns, sees)[0]
        assert not torch.allclose(attention(x, turns, None)[0], expected, atol=1e-3)
        fuse(attention)
        if on_gpu:
            with claimed_gpu():
                claim(attention)
                found = attention(x.to(GPU), tuple(turn.to(GPU) for turn in turns), sees.to(GPU))[0].cpu()
        else:
            found = attention(x, turns, sees)[0]
    torch.testing.assert_close(found, expected)
    assert len(calls) == (on_gpu and usable)


def test_an_mlp_computed_again_leaves_out_its_last_product(monkeypatch: pytest.MonkeyPatch) -> None:
    block, calls, forward = mlp(1, "gate_proj", "up_proj", "down_proj"), [], lora_blocks._Down.forward
    fuse(block)
    monkeypatch.setattr(lora_blocks._Down, "forward", lambda *args: (calls.append(args), forward(*args))[1])
    x = torch.randn(5, 16, requires_grad=True)
    checkpoint(block, x, use_reentrant=False).sum().backward()
    assert len(calls) == 1
    assert x.grad is not None


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_padded_product_adds_the_same(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    out, left, right = (torch.randn(*size, generator=generator) for size in [(5, 7), (5, rank), (rank, 7)])
    expected = out + 1.5 * left @ right
    with claimed_gpu():
        there = out.clone().to(GPU), left.to(GPU), right.to(GPU)
        torch.testing.assert_close(add_product_(*there, 1.5).cpu(), expected)


def test_a_gpus_norm_is_transformers() -> None:
    norm = Qwen2RMSNorm(16, eps=1e-2)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 16)
    expected = norm(x)
    fuse(norm)
    assert torch.equal(norm(x), expected)
    with claimed_gpu():
        claim(norm)
        torch.testing.assert_close(norm(x.to(GPU)).cpu(), expected)
