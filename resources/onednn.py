"""Float32 products on a CPU by oneDNN: torch gives its own to MKL, which leaves AMD's CPUs at AVX2.

On an AMD EPYC with AVX-512 oneDNN takes 0.45 to 0.5 of the time (`python -m bench.products`); rounding differs.
Shapes: T rows, I inputs, O outputs.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F

FEWEST_ROWS = 64
"""Below, what oneDNN takes to begin (10 us) is more than it saves."""


def linear(x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + bias as `torch.nn.functional.linear` gives, gradients included; by oneDNN where it is the faster one."""
    if not _is_faster(x, weight_OI):
        return F.linear(x, weight_OI, bias_O)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight_OI, bias_O)):
        return cast("torch.Tensor", _Linear.apply(x, weight_OI, bias_O))
    return _product(x, weight_OI, bias_O)


def use_onednn(model: torch.nn.Module) -> None:
    """From now on every plain linear layer of the model computes by `linear`; weights and names stay as they are."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = OneDnnLinear


class OneDnnLinear(torch.nn.Linear):
    """A linear layer that asks `linear` instead of torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[..., I] to [..., O]."""
        return linear(x, self.weight, self.bias)


def _is_faster(x: torch.Tensor, weight_OI: torch.Tensor) -> bool:
    return (
        x.dtype == weight_OI.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() >= FEWEST_ROWS * x.shape[-1]
        and min(weight_OI.shape) > 1
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
    )


def _product(x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    if not (weight_OI.is_contiguous() or weight_OI.T.is_contiguous()):
        # A cut out of a wider matrix goes through oneDNN's reference code, a thousand times as slow.
        weight_OI = weight_OI.contiguous()
    if bias_O is not None:
        bias_O = bias_O.contiguous()  # oneDNN reads one of other strides as if they were 1
    return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")


class _Linear(torch.autograd.Function):
    """x W^T + bias and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight_OI)
        return _product(x, weight_OI, bias_O)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        x, weight_OI = ctx.saved_tensors
        grad_TO, x_TI = grad.flatten(0, -2), x.flatten(0, -2)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            linear(grad, weight_OI.T) if needs_x else None,
            linear(grad_TO.T, x_TI.T) if needs_weight else None,
            grad_TO.sum(0) if needs_bias else None,
        )


def _flops(x_shape: Sequence[int], weight_shape: Sequence[int], *_others: object, **_shape: object) -> int:
    return 2 * math.prod(x_shape) * weight_shape[0]


FLOP_FORMULA = {torch.ops.mkldnn._linear_pointwise: _flops} if torch.backends.mkldnn.is_available() else {}
"""How torch's `FlopCounterMode(custom_mapping=...)` counts these products."""
