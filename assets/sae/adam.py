"""Adam, a few tensors at a time, by torch's functional form: a matrix is stepped while its gradient is in the cache.

One optimiser over all tensors wants every gradient first; that costs a twentieth of a training step of 512 tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.optim.adam import adam

BETAS = (0.9, 0.999)
EPSILON = 1e-8
"""Both are torch's defaults."""


@dataclass(frozen=True)
class Moments:
    """What Adam remembers of one tensor."""

    mean: torch.Tensor
    square: torch.Tensor
    steps: torch.Tensor
    """float32 scalar: how many were done."""

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Moments":
        """Before the first step."""
        return cls(torch.zeros_like(tensor), torch.zeros_like(tensor), torch.zeros((), device=tensor.device))


def descend(
    tensors: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    moments: Sequence[Moments],
    rate: float | torch.Tensor,
) -> None:
    """One step down the gradients, in place; a CUDA graph needs the rate as a tensor."""
    adam(
        list(tensors),
        list(gradients),
        [each.mean for each in moments],
        [each.square for each in moments],
        [],
        [each.steps for each in moments],
        fused=True,
        capturable=isinstance(rate, torch.Tensor) and rate.is_cuda,
        amsgrad=False,
        beta1=BETAS[0],
        beta2=BETAS[1],
        lr=rate,
        weight_decay=0.0,
        eps=EPSILON,
        maximize=False,
    )
