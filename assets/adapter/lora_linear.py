"""An adapted matrix as one autograd node: base product and rank-R update without intermediate [T, O] tensors.

PEFT's own forward computes the update, scales it and adds it in three passes over [T, O], and casts the input to the
adapter's precision. Here the update is added in place by one rank-R product, and A and B stay float32 masters.
Shapes: T tokens, I inputs, O outputs, R rank.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as PeftLinear

from resources import onednn
from resources.narrow_products import ALIGNED


class Adapted(NamedTuple):
    """What an adapted matrix computes with: W and bias are frozen."""

    weight_OI: torch.Tensor
    bias_O: torch.Tensor | None
    a_RI: torch.Tensor
    b_OR: torch.Tensor
    scale: float

    @classmethod
    def of(cls, layer: PeftLinear) -> "Adapted":
        """PEFT's parameters of one matrix."""
        (name,) = layer.active_adapters
        base = cast("torch.nn.Linear", layer.get_base_layer())
        a, b = (cast("torch.nn.Linear", matrices[name]) for matrices in (layer.lora_A, layer.lora_B))
        return cls(base.weight, base.bias, a.weight, b.weight, layer.scaling[name])


def linear(layer: PeftLinear, x: torch.Tensor) -> torch.Tensor:
    """What PEFT's forward gives."""
    return cast("torch.Tensor", _AdaptedLinear.apply(x, *Adapted.of(layer)))


def add_product_(out_TO: torch.Tensor, left_TR: torch.Tensor, right_RO: torch.Tensor, scale: float) -> torch.Tensor:
    """out += scale x left @ right, in place.

    On a GPU R is padded to what aligned kernels take: on an H200 a sixth faster for a [9813, 27648] `out`.
    """
    missing = -left_TR.shape[1] % ALIGNED if out_TO.is_cuda else 0
    if missing:
        left_TR, right_RO = F.pad(left_TR, (0, missing)), F.pad(right_RO, (0, 0, 0, missing))
    return out_TO.addmm_(left_TR, right_RO, alpha=scale)


class _AdaptedLinear(torch.autograd.Function):
    """One adapted matrix."""

    @staticmethod
    def forward(
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
        y_TO = add_product_(onednn.linear(x_TI, weight_OI, bias_O), h_TR, b_OR.T, scale)
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
            grad_x = add_product_(onednn.linear(grad_TO, weight_OI.T), grad_h_TR, a_RI, 1.0)
            grad_x = grad_x.unflatten(0, grad.shape[:-1])
        grad_a_RI = (grad_h_TR.T @ x_TI).float()
        grad_b_OR = (grad_TO.T @ h_TR).float().mul_(ctx.scale)
        return grad_x, None, None, grad_a_RI, grad_b_OR, None
