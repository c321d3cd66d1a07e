"""The adapted model's blocks with little kept and few passes: its matrices, MLP and, on a GPU, norms and rotations.

Parameters, names and results stay PEFT's and transformers'.
Shapes: T tokens, D hidden size, I the MLP's width, O its output, R rank.
"""

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as PeftLinear
from transformers import AttentionInterface
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2MLP, Qwen2RMSNorm

from assets.adapter.lora_linear import Adapted, add_product_, linear
from assets.adapter.optional import is_usable
from resources import onednn


def fuse(model: torch.nn.Module) -> None:
    """Let every adapted matrix, MLP and norm of a PEFT model compute as one node each."""
    for module in model.modules():
        if isinstance(module, PeftLinear):
            _give(module, linear)
        elif isinstance(module, Qwen2MLP) and isinstance(module.down_proj, PeftLinear):
            _give(module, _mlp)
        elif isinstance(module, Qwen2RMSNorm):
            _give(module, _norm)
        elif isinstance(module, Qwen2Attention):
            _give(module, _attention)


def _give(module: torch.nn.Module, forward: Any) -> None:
    module.forward = partial(forward, module)


def _norm(norm: Qwen2RMSNorm, x: torch.Tensor) -> torch.Tensor:
    """torch's kernel on a GPU: transformers' own forward is six passes and keeps float32 copies."""
    if x.is_cuda:
        return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)
    return Qwen2RMSNorm.forward(norm, x)


def _attention(
    attention: Qwen2Attention,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """transformers' own, with liger-kernel's rotation on a GPU: in place, where the other is 10 passes each way."""
    if not (hidden_states.is_cuda and is_usable("liger_kernel")):
        return Qwen2Attention.forward(attention, hidden_states, position_embeddings, attention_mask, **others)
    from liger_kernel.ops.rope import LigerRopeFunction

    shape, heads = hidden_states.shape[:-1], (-1, attention.head_dim)
    query, key, value = (
        project(hidden_states).unflatten(-1, heads).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = LigerRopeFunction.apply(query, key, *position_embeddings)
    attend = AttentionInterface()[cast("str", attention.config._attn_implementation)]
    out, weights = attend(attention, query, key, value, attention_mask, scaling=attention.scaling, **others)
    return attention.o_proj(out.reshape(*shape, -1)), weights


def _mlp(mlp: Qwen2MLP, x: torch.Tensor) -> torch.Tensor:
    down = Adapted.of(cast("PeftLinear", mlp.down_proj))
    x_TD = x.flatten(0, -2)
    if x.is_cuda and is_usable("triton") and _has_rank_one(mlp):
        gate, up = (Adapted.of(cast("PeftLinear", matrix)) for matrix in (mlp.gate_proj, mlp.up_proj))
        act_TI, h_TR = _GateOfRankOne.apply(x_TD, gate.a_RI, gate.b_OR, up.a_RI, up.b_OR, down.a_RI, gate, up)
    else:
        act_TI, h_TR = _Gated.apply(mlp.gate_proj(x_TD), mlp.up_proj(x_TD), down.a_RI)
    return cast("torch.Tensor", _Down.apply(act_TI, h_TR, down.b_OR, down)).unflatten(0, x.shape[:-1])


def _has_rank_one(mlp: Qwen2MLP) -> bool:
    """Whether all three matrices are adapted, and by rank 1."""
    return all(
        isinstance(matrix, PeftLinear) and len(Adapted.of(matrix).a_RI) == 1
        for matrix in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    )


class _GateOfRankOne(torch.autograd.Function):
    """What gate, up and `_Gated` give, by the kernels of `gated_kernels.py`; what is kept is the same."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: torch.Tensor,
        a_gate_1D: torch.Tensor,
        b_gate_I1: torch.Tensor,
        a_up_1D: torch.Tensor,
        b_up_I1: torch.Tensor,
        a_down_1I: torch.Tensor,
        gate: Adapted,
        up: Adapted,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        from assets.adapter.gated_kernels import Gate, gated

        a_2D = torch.cat([a_gate_1D, a_up_1D]).to(x_TD.dtype)
        b_2I = torch.cat([gate.scale * b_gate_I1.T, up.scale * b_up_I1.T])
        given = Gate(x_TD @ gate.weight_OI.T, x_TD @ up.weight_OI.T, x_TD @ a_2D.T, b_2I, a_down_1I[0])
        ctx.save_for_backward(x_TD, a_2D, *given)
        ctx.gate, ctx.up = gate, up
        act_TI, h_T1 = gated(given)
        return act_TI, h_T1.to(x_TD.dtype)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_act_TI: torch.Tensor, grad_h_T1: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        from assets.adapter.gated_kernels import Gate, gated_backward

        x_TD, a_2D, *given = ctx.saved_tensors
        found = gated_backward(Gate(*given), grad_act_TI, grad_h_T1)
        grad_h_T2 = found.h_T2.to(x_TD.dtype)
        grad_x_TD = None
        if ctx.needs_input_grad[0]:
            grad_x_TD = (found.gate_TI @ ctx.gate.weight_OI).addmm_(found.up_TI, ctx.up.weight_OI)
            add_product_(grad_x_TD, grad_h_T2, a_2D, 1.0)
        grad_a_2D = (grad_h_T2.T @ x_TD).float()
        grad_b_gate_I1, grad_b_up_I1 = (
            (each.scale * grad_I)[:, None] for each, grad_I in zip((ctx.gate, ctx.up), found.b_2I, strict=True)
        )
        return (
            grad_x_TD, grad_a_2D[:1], grad_b_gate_I1, grad_a_2D[1:], grad_b_up_I1, found.a_I[None], None, None
        )  # fmt: skip


class _Gated(torch.autograd.Function):
    """act = silu(gate) x up, and h = act A^T. Gate and up alone are kept: two tensors [T, I] of four."""

    @staticmethod
    def forward(
        ctx: Any, gate_TI: torch.Tensor, up_TI: torch.Tensor, a_RI: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        a_RI = a_RI.to(gate_TI.dtype)
        act_TI = F.silu(gate_TI).mul_(up_TI)
        ctx.save_for_backward(gate_TI, up_TI, a_RI)
        return act_TI, act_TI @ a_RI.T

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_act_TI: torch.Tensor, grad_h_TR: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        gate_TI, up_TI, a_RI = ctx.saved_tensors
        active_TI = F.silu(gate_TI)
        grad_a_RI = (grad_h_TR.T @ (active_TI * up_TI)).float()
        add_product_(grad_act_TI, grad_h_TR, a_RI, 1.0)
        grad_up_TI = active_TI.mul_(grad_act_TI)
        grad_gate_TI = torch.ops.aten.silu_backward(grad_act_TI.mul_(up_TI), gate_TI)
        return grad_gate_TI, grad_up_TI, grad_a_RI


class _Down(torch.autograd.Function):
    """y = act W^T + bias + scale h B^T.

    Keeps nothing by `save_for_backward`: a layer that is computed again in the backward pass then ends before this
    product, three tenths of a layer's work. h is as small as the adapter.
    """

    @staticmethod
    def forward(ctx: Any, act_TI: torch.Tensor, h_TR: torch.Tensor, b_OR: torch.Tensor, down: Adapted) -> torch.Tensor:
        ctx.h_TR, ctx.down = h_TR.detach(), down._replace(b_OR=b_OR.detach().to(act_TI.dtype))
        y_TO = onednn.linear(act_TI, down.weight_OI, down.bias_O)
        return add_product_(y_TO, h_TR, ctx.down.b_OR.T, down.scale)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_TO: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        grad_h_TR = (grad_TO @ ctx.down.b_OR).mul_(ctx.down.scale)
        grad_b_OR = (grad_TO.T @ ctx.h_TR).float().mul_(ctx.down.scale)
        return onednn.linear(grad_TO, ctx.down.weight_OI.T), grad_h_TR, grad_b_OR, None
