"""The adapted model's fused blocks: what PEFT and transformers compute, and how little is computed again."""

import peft
import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm

from assets.adapter import lora_blocks
from assets.adapter.lora_blocks import fuse
from assets.adapter.lora_linear import add_product_
from tests.claimed_gpu import GPU, claim, claimed_gpu

CONFIG = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 1, "vocab_size": 32}  # fmt: skip


def mlp(rank: int, *targets: str) -> Qwen2MLP:
    """A random MLP whose adapter does something."""
    torch.manual_seed(0)
    base = Qwen2ForCausalLM(Qwen2Config(**CONFIG))  # pyright: ignore[reportArgumentType]
    model = peft.get_peft_model(base, peft.LoraConfig(r=rank, target_modules=list(targets), use_rslora=True))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return base.model.layers[0].mlp


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


def test_an_mlp_computed_again_leaves_out_its_last_product(monkeypatch: pytest.MonkeyPatch) -> None:
    block, calls, forward = mlp(1, "gate_proj", "up_proj", "down_proj"), [], lora_blocks._Down.forward
    fuse(block)
    monkeypatch.setattr(lora_blocks._Down, "forward", lambda *args: (calls.append(args), forward(*args))[1])
    x = torch.randn(5, 16, requires_grad=True)
    checkpoint(block, x, use_reentrant=False).sum().backward()  # pyright: ignore[reportOptionalMemberAccess]
    assert len(calls) == 1
    assert x.grad is not None


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_padded_product_adds_the_same(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    out, left, right = (torch.randn(*size, generator=generator) for size in [(5, 7), (5, rank), (rank, 7)])
    expected = out + 1.5 * left @ right
    with claimed_gpu():
        there = [tensor.clone().to(GPU) for tensor in (out, left, right)]
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
