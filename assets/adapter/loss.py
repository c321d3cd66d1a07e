"""Cross-entropy of many tokens over a large vocabulary without ever holding [tokens, vocabulary] at once.

The gradient of the logits is made and used chunk by chunk in the forward pass; liger-kernel does the same on CUDA.
Shapes: T predicted tokens, C tokens of a chunk, D hidden size, V vocabulary.
"""

from typing import Any, cast

import torch

from assets.adapter.optional import is_usable
from resources.memory import CHUNK_ELEMENTS
from resources.onednn import linear


def summed_cross_entropy(hidden_TD: torch.Tensor, head_VD: torch.Tensor, target_T: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of the cross-entropy of `hidden @ head.T` at `target`, in float32; a scalar.

    The gradients of `hidden` and (where it needs one) `head` are those of the full computation.
    """
    if hidden_TD.is_cuda and len(target_T) and is_usable("liger_kernel"):
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        return LigerFusedLinearCrossEntropyLoss(reduction="sum")(head_VD, hidden_TD, target_T)
    return cast("torch.Tensor", _ChunkedCrossEntropy.apply(hidden_TD, head_VD, target_T))


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TD: torch.Tensor, head_VD: torch.Tensor, target_T: torch.Tensor) -> torch.Tensor:
        needs_hidden, needs_head, _ = ctx.needs_input_grad
        grad_hidden_TD = torch.empty_like(hidden_TD) if needs_hidden else None
        grad_head_VD = torch.zeros_like(head_VD, dtype=torch.float32) if needs_head else None
        total = hidden_TD.new_zeros((), dtype=torch.float32)
        rows = max(1, CHUNK_ELEMENTS // head_VD.shape[0])
        for begin in range(0, len(target_T), rows):
            chunk = slice(begin, begin + rows)
            hidden_CD, target_C1 = hidden_TD[chunk], target_T[chunk, None]
            logits_CV = linear(hidden_CD, head_VD).float()
            lse_C = logits_CV.logsumexp(-1)
            total += (lse_C - logits_CV.gather(1, target_C1).squeeze(1)).sum()
            grad_CV = logits_CV.sub_(lse_C[:, None]).exp_()
            grad_CV.scatter_add_(1, target_C1, grad_CV.new_full(target_C1.shape, -1.0))
            grad_CV = grad_CV.to(hidden_TD.dtype)
            if grad_hidden_TD is not None:
                grad_hidden_TD[chunk] = linear(grad_CV, head_VD.T)
            if grad_head_VD is not None:
                grad_head_VD += linear(grad_CV.T, hidden_CD.T)
        ctx.save_for_backward(grad_hidden_TD, grad_head_VD)
        ctx.head_dtype = head_VD.dtype
        return total

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        grad_hidden_TD, grad_head_VD = ctx.saved_tensors
        if grad_hidden_TD is not None:
            grad_hidden_TD = grad_hidden_TD * grad.to(grad_hidden_TD.dtype)
        if grad_head_VD is not None:
            grad_head_VD = (grad_head_VD * grad).to(ctx.head_dtype)
        return grad_hidden_TD, grad_head_VD, None
