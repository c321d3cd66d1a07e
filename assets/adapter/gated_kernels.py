"""The adapted MLP's gate on a GPU in one pass each way, rank-1 updates included, as Triton kernels.

torch's kernels read and write a [T, I] matrix, half a gigabyte for a 10,000-token rollout of the 32B, 10 times forward
and 21 times back; these do so 3 and 5 times. Both work in float32 and round once. Deterministic: what blocks sum is
added up in a fixed order.
Shapes: T tokens, I the MLP's width, C chunks of tokens.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

BLOCK_I, WARPS = 128, 4
"""A block's columns, and the warps that compute it: of ten ways on an H200 the fastest, by up to three tenths."""
FORWARD_T, BACKWARD_T = 16, 8
"""Tokens that a block holds at a time."""
CHUNK = 512
"""Tokens that a block of the backward pass goes through, summing what the adapters' gradients need."""


class Gate(NamedTuple):
    """Gate and up before their updates, and what the updates are made of."""

    gate_TI: torch.Tensor
    up_TI: torch.Tensor
    h_T2: torch.Tensor
    """x A^T of both."""
    b_2I: torch.Tensor
    """Both B times the adapter's scale, in float32."""
    a_I: torch.Tensor
    """The last matrix's A, in float32."""


class GateGradients(NamedTuple):
    """Gradients of `Gate`'s tensors; the gate's own takes the place of that of the activations."""

    gate_TI: torch.Tensor
    up_TI: torch.Tensor
    h_T2: torch.Tensor
    """float32, as the next two."""
    b_2I: torch.Tensor
    a_I: torch.Tensor


def gated(gate: Gate) -> tuple[torch.Tensor, torch.Tensor]:
    """act = silu(gate) x up [T, I], and act A^T [T, 1] in float32."""
    (tokens, width), blocks = gate.gate_TI.shape, -(-gate.gate_TI.shape[1] // BLOCK_I)
    act_TI = torch.empty_like(gate.gate_TI)
    parts_T = gate.a_I.new_empty(blocks, tokens)
    _forward[-(-tokens // FORWARD_T), blocks](
        *gate, act_TI, parts_T, tokens, width, BLOCK_T=FORWARD_T, BLOCK_I=BLOCK_I, num_warps=WARPS,  # pyright: ignore[reportCallIssue] - of Triton
    )  # fmt: skip
    return act_TI, parts_T.sum(dim=0)[:, None]


def gated_backward(gate: Gate, grad_act_TI: torch.Tensor, grad_h_T1: torch.Tensor) -> GateGradients:
    """From the gradients of `gated`'s two results; that of act is overwritten."""
    (tokens, width), blocks = gate.gate_TI.shape, -(-gate.gate_TI.shape[1] // BLOCK_I)
    chunks = -(-tokens // CHUNK)
    grad_up_TI = torch.empty_like(gate.up_TI)
    parts_T2, parts_C3I = gate.a_I.new_empty(blocks, tokens, 2), gate.a_I.new_empty(chunks, 3, width)
    _backward[blocks, chunks](
        *gate, grad_act_TI, grad_h_T1, grad_up_TI, parts_T2, parts_C3I, tokens, width,
        CHUNK=CHUNK, BLOCK_T=BACKWARD_T, BLOCK_I=BLOCK_I, num_warps=WARPS,  # pyright: ignore[reportCallIssue] - of Triton
    )  # fmt: skip
    grad_3I = parts_C3I.sum(dim=0)
    return GateGradients(grad_act_TI, grad_up_TI, parts_T2.sum(dim=0), grad_3I[:2], grad_3I[2])


@triton.jit
def _forward(
    gate: torch.Tensor, up: torch.Tensor, h: torch.Tensor, b: torch.Tensor, a: torch.Tensor,
    act: torch.Tensor, parts: torch.Tensor,
    tokens: int, width: int, BLOCK_T: tl.constexpr, BLOCK_I: tl.constexpr,
) -> None:  # fmt: skip
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    i = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    is_t, is_i = t < tokens, i < width
    at = t[:, None].to(tl.int64) * width + i[None, :]
    is_at = is_t[:, None] & is_i[None, :]
    gate_ti = tl.load(gate + at, mask=is_at, other=0.0).to(tl.float32)
    up_ti = tl.load(up + at, mask=is_at, other=0.0).to(tl.float32)
    h_gate_t = tl.load(h + 2 * t, mask=is_t, other=0.0).to(tl.float32)
    h_up_t = tl.load(h + 2 * t + 1, mask=is_t, other=0.0).to(tl.float32)
    gate_ti += h_gate_t[:, None] * tl.load(b + i, mask=is_i, other=0.0)[None, :]
    up_ti += h_up_t[:, None] * tl.load(b + width + i, mask=is_i, other=0.0)[None, :]
    act_ti = gate_ti * tl.sigmoid(gate_ti) * up_ti
    tl.store(act + at, act_ti.to(act.dtype.element_ty), mask=is_at)
    read_t = tl.sum(act_ti * tl.load(a + i, mask=is_i, other=0.0)[None, :], axis=1)
    tl.store(parts + tl.program_id(1).to(tl.int64) * tokens + t, read_t, mask=is_t)


@triton.jit
def _backward(
    gate: torch.Tensor, up: torch.Tensor, h: torch.Tensor, b: torch.Tensor, a: torch.Tensor,
    grad_act: torch.Tensor, grad_h: torch.Tensor, grad_up: torch.Tensor,
    parts: torch.Tensor, weight_parts: torch.Tensor,
    tokens: int, width: int, CHUNK: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_I: tl.constexpr,
) -> None:  # fmt: skip
    i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    is_i = i < width
    b_gate_i = tl.load(b + i, mask=is_i, other=0.0)
    b_up_i = tl.load(b + width + i, mask=is_i, other=0.0)
    a_i = tl.load(a + i, mask=is_i, other=0.0)
    grad_b_gate_ti = tl.zeros((BLOCK_T, BLOCK_I), tl.float32)
    grad_b_up_ti = tl.zeros((BLOCK_T, BLOCK_I), tl.float32)
    grad_a_ti = tl.zeros((BLOCK_T, BLOCK_I), tl.float32)
    for start in range(0, CHUNK, BLOCK_T):
        t = tl.program_id(1) * CHUNK + start + tl.arange(0, BLOCK_T)
        is_t = t < tokens
        at = t[:, None].to(tl.int64) * width + i[None, :]
        is_at = is_t[:, None] & is_i[None, :]
        h_gate_t = tl.load(h + 2 * t, mask=is_t, other=0.0).to(tl.float32)
        h_up_t = tl.load(h + 2 * t + 1, mask=is_t, other=0.0).to(tl.float32)
        grad_h_t = tl.load(grad_h + t, mask=is_t, other=0.0).to(tl.float32)
        gate_ti = tl.load(gate + at, mask=is_at, other=0.0).to(tl.float32) + h_gate_t[:, None] * b_gate_i[None, :]
        up_ti = tl.load(up + at, mask=is_at, other=0.0).to(tl.float32) + h_up_t[:, None] * b_up_i[None, :]
        grad_ti = tl.load(grad_act + at, mask=is_at, other=0.0).to(tl.float32) + grad_h_t[:, None] * a_i[None, :]
        sigmoid_ti = tl.sigmoid(gate_ti)
        silu_ti = gate_ti * sigmoid_ti
        grad_a_ti += grad_h_t[:, None] * silu_ti * up_ti
        grad_up_ti = grad_ti * silu_ti
        grad_gate_ti = grad_ti * up_ti * (sigmoid_ti + silu_ti * (1 - sigmoid_ti))
        tl.store(grad_up + at, grad_up_ti.to(grad_up.dtype.element_ty), mask=is_at)
        tl.store(grad_act + at, grad_gate_ti.to(grad_act.dtype.element_ty), mask=is_at)
        grad_b_gate_ti += h_gate_t[:, None] * grad_gate_ti
        grad_b_up_ti += h_up_t[:, None] * grad_up_ti
        part = parts + 2 * (tl.program_id(0).to(tl.int64) * tokens + t)
        tl.store(part, tl.sum(grad_gate_ti * b_gate_i[None, :], axis=1), mask=is_t)
        tl.store(part + 1, tl.sum(grad_up_ti * b_up_i[None, :], axis=1), mask=is_t)
    sums = weight_parts + tl.program_id(1).to(tl.int64) * 3 * width + i
    tl.store(sums, tl.sum(grad_b_gate_ti, axis=0), mask=is_i)
    tl.store(sums + width, tl.sum(grad_b_up_ti, axis=0), mask=is_i)
    tl.store(sums + 2 * width, tl.sum(grad_a_ti, axis=0), mask=is_i)
