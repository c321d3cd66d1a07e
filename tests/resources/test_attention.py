"""A packed forward pass equals one plain forward pass per rollout: logits, gradients, adapters, checkpointing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import Qwen2Config, Qwen2ForCausalLM

from resources import attention
from resources.attention import use_varlen_attention
from resources.errors import BadInput
from resources.packing import forward_kwargs, pack
from tests.claimed_gpu import GPU, claimed_gpu

LENGTHS = (7, 3, 3, 12, 1)
"""Two equal neighbours, which attention computes in one call, and a rollout of one token."""


def rollouts() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 260, length).astype(np.int32) for length in LENGTHS]


def alone(model: torch.nn.Module) -> torch.Tensor:
    """Logits [T, V] of a plain batch-1 forward per rollout, with transformers' own attention."""
    return torch.cat([model(torch.from_numpy(ids).long()[None]).logits[0] for ids in rollouts()])


def test_packed_logits_equal_those_of_each_rollout_alone(tiny_model: Path) -> None:
    model = Qwen2ForCausalLM.from_pretrained(tiny_model).eval()
    with torch.no_grad():
        expected_TV = alone(model)
        use_varlen_attention(model)
        found_TV = model(**forward_kwargs(pack(rollouts()), "cpu")).logits[0]
    assert expected_TV.abs().max() > 0.1
    torch.testing.assert_close(found_TV, expected_TV, atol=1e-5, rtol=0)


def test_adapted_with_checkpointing_it_gives_the_gradients_of_plain_forwards(
    tiny_model: Path, tiny_adapter: Path
) -> None:
    def gradients(packed: bool) -> list[torch.Tensor]:
        base = Qwen2ForCausalLM.from_pretrained(tiny_model)
        model = PeftModel.from_pretrained(base, str(tiny_adapter), is_trainable=True).train()
        if packed:
            use_varlen_attention(model)
            base.activation_checkpointing_enable({"use_reentrant": False})
            logits_TV = model(**forward_kwargs(pack(rollouts()), "cpu")).logits[0]
        else:
            logits_TV = alone(model)
        logits_TV.logsumexp(-1).sum().backward()
        return [weight.grad for weight in model.parameters() if weight.grad is not None]

    expected, found = gradients(packed=False), gradients(packed=True)
    assert len(found) == len(expected) == 2 * 7 * 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_call_that_does_not_say_where_rollouts_begin_is_refused(tiny_model: Path) -> None:
    model = Qwen2ForCausalLM.from_pretrained(tiny_model)
    use_varlen_attention(model)
    with pytest.raises(ValueError, match="packed rollouts"):
        model(torch.zeros(1, 4, dtype=torch.long))


def test_sliding_windows_are_refused() -> None:
    with torch.device("meta"):
        model = Qwen2ForCausalLM(
            Qwen2Config(num_hidden_layers=2, hidden_size=32, use_sliding_window=True, max_window_layers=1)
        )
    with pytest.raises(BadInput, match="sliding-window"):
        use_varlen_attention(model)


@pytest.mark.parametrize(("lengths", "alone"), [((1100, 1000), True), ((1100, 900), False)])
def test_a_gpu_takes_long_rollouts_one_by_one_and_short_ones_together(
    lengths: tuple[int, ...], alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1050 and 1000 tokens on average: from 1024 on cuDNN's kernels are faster than those for variable lengths."""
    together = []
    monkeypatch.setattr(attention, "_flash", lambda *given: together.append(given[3:5]) or torch.zeros(1))
    cu_seqlens = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32)
    q, k, v = (torch.randn(1, heads, sum(lengths), 4).bfloat16() for heads in (2, 1, 1))
    with claimed_gpu():
        there = q.to(GPU), k.to(GPU), v.to(GPU)
        found, _ = attention._varlen_attention(
            torch.nn.Module(), *there, None, 0.5, cu_seqlens=cu_seqlens, rollout_lengths=lengths
        )
    assert together == ([] if alone else [(cu_seqlens, 1100)])
    if alone:
        expected = attention._each_alone(q, k, v, lengths, 0.5)
        torch.testing.assert_close(found.cpu(), expected)
