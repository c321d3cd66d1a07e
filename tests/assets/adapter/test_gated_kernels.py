"""The Triton kernels of the adapted MLP's gate, interpreted on a CPU: they are autograd's of the formula in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="triton is made for Linux alone")

from assets.adapter import gated_kernels
from assets.adapter.gated_kernels import BACKWARD_T, BLOCK_I, CHUNK, Gate, gated, gated_backward


def random_gate(tokens: int, width: int) -> Gate:
    generator = torch.Generator().manual_seed(tokens * width)
    sizes = (tokens, width), (tokens, width), (tokens, 2), (2, width), (width,)
    return Gate(*(torch.randn(size, generator=generator) for size in sizes))


def by_autograd(gate: Gate, grad_act_TI: torch.Tensor, grad_h_T1: torch.Tensor) -> tuple[list[torch.Tensor], ...]:
    """Results and gradients of the formula."""
    given = Gate(*(tensor.double().requires_grad_() for tensor in gate))
    gate_TI = given.gate_TI + given.h_T2[:, :1] * given.b_2I[0]
    act_TI = F.silu(gate_TI) * (given.up_TI + given.h_T2[:, 1:] * given.b_2I[1])
    h_T1 = (act_TI @ given.a_I)[:, None]
    torch.autograd.backward([act_TI, h_T1], [grad_act_TI.double(), grad_h_T1.double()])
    return [act_TI.detach(), h_T1.detach()], [tensor.grad for tensor in given if tensor.grad is not None]


@given(tokens=st.integers(1, 3 * BACKWARD_T), width=st.integers(1, 2 * BLOCK_I + 3))
@settings(max_examples=12)
def test_results_and_gradients_are_autograds_for_any_number_of_tokens_and_columns(tokens: int, width: int) -> None:
    gate = random_gate(tokens, width)
    grads = torch.randn(tokens, width), torch.randn(tokens, 1)
    results, gradients = by_autograd(gate, *grads)
    for ours, theirs in zip(gated(gate), results, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gated_backward(gate, *grads), gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_of_bfloat16_nothing_is_rounded_on_the_way_to_what_adapters_learn_from() -> None:
    """Activations and their gradients alone are, by one part in 256; the interpreter cuts off, by one in 128."""
    tokens, width = 2 * BACKWARD_T + 3, 9
    exact = random_gate(tokens, width)
    gate = exact._replace(gate_TI=exact.gate_TI.bfloat16(), up_TI=exact.up_TI.bfloat16(), h_T2=exact.h_T2.bfloat16())
    grads = torch.randn(tokens, width).bfloat16(), torch.randn(tokens, 1).bfloat16()
    (act_TI, h_T1), (grad_gate_TI, grad_up_TI, *others) = by_autograd(gate, *grads)
    found, gradients = gated(gate), gated_backward(gate, *grads)
    for ours, theirs in zip((found[0], *gradients[:2]), (act_TI, grad_gate_TI, grad_up_TI), strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), theirs, rtol=2**-7, atol=1e-5)
    for ours, theirs in zip((found[1], *gradients[2:]), (h_T1, *others), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def test_chunks_of_tokens_add_up_also_where_the_last_is_not_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated_kernels, "CHUNK", 2 * BACKWARD_T)
    gate, grads = (
        random_gate(5 * BACKWARD_T + 3, 7),
        (torch.randn(5 * BACKWARD_T + 3, 7), torch.randn(5 * BACKWARD_T + 3, 1)),
    )
    _, gradients = by_autograd(gate, *grads)
    for ours, theirs in zip(gated_backward(gate, *grads), gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_a_chunk_is_a_whole_number_of_blocks() -> None:
    assert CHUNK % BACKWARD_T == 0


def test_bfloat16_is_rounded_once() -> None:
    """silu(1 + 2^-9) x 258 is 189.08. By bfloat16 alone 1 + 2^-9 is 1, silu(1) is 0.7305, and 258 of that are 188."""
    gate = torch.ones(1, 1, dtype=torch.bfloat16)
    h_T2 = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    act_TI, _ = gated(Gate(gate, gate * 258, h_T2, torch.tensor([[2.0**-9], [0.0]]), torch.ones(1)))
    assert act_TI.item() == 189
    assert (F.silu(gate + h_T2[:, :1] * 2.0**-9) * 258).item() == 188
