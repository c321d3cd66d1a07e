"""The adapted model's blocks with little kept and few passes: its matrices, its MLP and, on a GPU, its norms.

Parameters, names and results stay PEFT's and transformers'.
Shapes: T tokens, I the MLP's width, O its output, R rank.
"""

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as PeftLinear
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm

from assets.adapter.lora_linear import Adapted, add_product_, linear


def fuse(model: torch.nn.Module) -> None:
    """Let every adapted matrix, MLP and norm of a PEFT model compute as one node each."""
    for module in model.modules():
        if isinstance(module, PeftLinear):
            _give(module, linear)
        elif isinstance(module, Qwen2MLP) and isinstance(module.down_proj, PeftLinear):
            _give(module, _mlp)
        elif isinstance(module, Qwen2RMSNorm):
            _give(module, _norm)


def _give(module: torch.nn.Module, forward: Any) -> None:
    module.forward = partial(forward, module)


def _norm(norm: Qwen2RMSNorm, x: torch.Tensor) -> torch.Tensor:
    """torch's kernel on a GPU: transformers' own forward is six passes and keeps float32 copies."""
    if x.is_cuda:
        return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)
    return Qwen2RMSNorm.forward(norm, x)


def _mlp(mlp: Qwen2MLP, x: torch.Tensor) -> torch.Tensor:
    down = Adapted.of(cast("PeftLinear", mlp.down_proj))
    gate, up = mlp.gate_proj(x), mlp.up_proj(x)
    act_TI, h_TR = _Gated.apply(gate.flatten(0, -2), up.flatten(0, -2), down.a_RI)
    return cast("torch.Tensor", _Down.apply(act_TI, h_TR, down.b_OR, down)).unflatten(0, x.shape[:-1])


class _Gated(torch.autograd.Function):
    """act = silu(gate) x up, and h = act A^T. Gate and up alone are kept: two tensors [T, I] of four."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
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
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, act_TI: torch.Tensor, h_TR: torch.Tensor, b_OR: torch.Tensor, down: Adapted
    ) -> torch.Tensor:
        ctx.h_TR, ctx.down = h_TR.detach(), down._replace(b_OR=b_OR.detach().to(act_TI.dtype))
        y_TO = F.linear(act_TI, down.weight_OI, down.bias_O)
        return add_product_(y_TO, h_TR, ctx.down.b_OR.T, down.scale)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_TO: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        grad_h_TR = (grad_TO @ ctx.down.b_OR).mul_(ctx.down.scale)
        grad_b_OR = (grad_TO.T @ ctx.h_TR).float().mul_(ctx.down.scale)
        return grad_TO @ ctx.down.weight_OI, grad_h_TR, grad_b_OR, None
