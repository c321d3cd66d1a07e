"""The adapted matrix as one autograd node: base product and rank-R update without intermediate [T, O] tensors.

PEFT's own forward computes the update, scales it and adds it in three passes over [T, O], and casts the input to the
adapter's precision. Here the update is added in place by one rank-R product, and A and B stay float32 masters.
Shapes: T tokens, I inputs, O outputs, R rank.
"""

from functools import partial
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as PeftLinear


def fuse(model: torch.nn.Module) -> None:
    """Let every LoRA matrix of a PEFT model compute through `_AdaptedLinear`; parameters and names stay PEFT's."""
    for module in model.modules():
        if isinstance(module, PeftLinear):
            module.forward = partial(_forward, module)  # pyright: ignore[reportAttributeAccessIssue]


def _forward(layer: PeftLinear, x: torch.Tensor) -> torch.Tensor:
    (name,) = layer.active_adapters
    base = cast("torch.nn.Linear", layer.get_base_layer())
    a_RI, b_OR = layer.lora_A[name].weight, layer.lora_B[name].weight
    out = _AdaptedLinear.apply(x, base.weight, base.bias, a_RI, b_OR, layer.scaling[name])
    return cast("torch.Tensor", out)


class _AdaptedLinear(torch.autograd.Function):
    """y = x W^T + bias + scale (x A^T) B^T; W and bias are frozen."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        a_RI: torch.Tensor,
        b_OR: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        x_TI = x.reshape(-1, x.shape[-1])
        a_RI, b_OR = a_RI.to(x.dtype), b_OR.to(x.dtype)
        h_TR = x_TI @ a_RI.T
        y_TO = torch.nn.functional.linear(x_TI, weight_OI, bias_O)
        y_TO.addmm_(h_TR, b_OR.T, alpha=scale)
        ctx.save_for_backward(x_TI, weight_OI, a_RI, b_OR, h_TR)
        ctx.scale = scale
        return y_TO.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, None, None, torch.Tensor, torch.Tensor, None]:
        x_TI, weight_OI, a_RI, b_OR, h_TR = ctx.saved_tensors
        grad_TO = grad.reshape(-1, grad.shape[-1])
        grad_h_TR = (grad_TO @ b_OR).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_TO @ weight_OI).addmm_(grad_h_TR, a_RI).unflatten(0, grad.shape[:-1])
        grad_a_RI = (grad_h_TR.T @ x_TI).float()
        grad_b_OR = (grad_TO.T @ h_TR).float().mul_(ctx.scale)
        return grad_x, None, None, grad_a_RI, grad_b_OR, None
