"""Causal attention over packed rollouts: each token sees its own rollout only, and no [T, T] mask is ever built.

Registered with transformers under `NAME`. transformers makes no mask for a name it has no mask function for.
Shapes: T tokens of all rollouts, H query heads, K key/value heads, D head width, N rollouts, L tokens of each of them.
"""

from itertools import groupby
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

from resources.errors import BadInput

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

NAME = "lorascope_varlen"
LONG = 1024
"""Mean tokens of a rollout from which a GPU takes them one by one, by cuDNN's kernels for Hopper: at 10,000 they are
nearly twice as fast as the flash attention that takes variable lengths (bench/RESULTS.md); where that begins, below, is
not measured."""


def use_varlen_attention(model: "PreTrainedModel | PeftModel") -> None:
    """From now on the model takes `resources.packing.forward_kwargs` and treats each rollout separately.

    Raises:
        BadInput: when the model uses sliding windows or attention dropout, which this attention does not compute.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _varlen_attention)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
    config = base.config
    if "sliding_attention" in getattr(config, "layer_types", ()) or getattr(config, "attention_dropout", 0):
        raise BadInput("models with sliding-window attention or attention dropout are not supported: use Qwen2.5")
    base.set_attn_implementation(NAME)  # pyright: ignore[reportCallIssue]


def _varlen_attention(
    module: torch.nn.Module,  # noqa: ARG001
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    attention_mask: None,  # noqa: ARG001
    scaling: float,
    *,
    cu_seqlens: torch.Tensor | None = None,
    rollout_lengths: tuple[int, ...] = (),
    **_others: object,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature; returns [1, T, H, D].

    Raises:
        ValueError: when the call does not say where the rollouts begin.
    """
    if cu_seqlens is None:
        raise ValueError("this model takes packed rollouts: call it with resources.packing.forward_kwargs(pack(...))")
    states = query_1HTD, key_1KTD, value_1KTD
    in_halves = query_1HTD.is_cuda and query_1HTD.dtype in (torch.bfloat16, torch.float16)
    if in_halves and sum(rollout_lengths) < LONG * len(rollout_lengths):
        return _flash(*states, cu_seqlens, max(rollout_lengths), scaling), None
    return _each_alone(*states, rollout_lengths, scaling), None


def _flash(
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    cu_seqlens: torch.Tensor,
    longest: int,
    scaling: float,
) -> torch.Tensor:
    """PyTorch's variable-length flash attention for half precision on CUDA; [1, T, H, D]."""
    from torch.nn.attention.varlen import varlen_attn

    q_THD, k_TKD, v_TKD = (states[0].transpose(0, 1) for states in (query_1HTD, key_1KTD, value_1KTD))
    out_THD = varlen_attn(
        q_THD,
        k_TKD,
        v_TKD,
        cu_seqlens,
        cu_seqlens,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # nothing after the token, everything before it
        enable_gqa=q_THD.shape[1] != k_TKD.shape[1],
    )
    return cast("torch.Tensor", out_THD)[None]


def _each_alone(
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    lengths: tuple[int, ...],
    scaling: float,
) -> torch.Tensor:
    """One SDPA call per run of neighbouring rollouts of equal length; [1, T, H, D]."""
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    # split, not slices: the backward pass of a slice fills a whole [1, H, T, D] with zeros
    parts = (
        states.split([length * num for length, num in runs], dim=2) for states in (query_1HTD, key_1KTD, value_1KTD)
    )
    outs_TiHD: list[torch.Tensor] = []
    for (length, num), *states in zip(runs, *parts, strict=True):
        q_NHLD, k_NKLD, v_NKLD = (part[0].unflatten(1, (num, length)).transpose(0, 1) for part in states)
        out_NHLD = F.scaled_dot_product_attention(
            q_NHLD, k_NKLD, v_NKLD, is_causal=True, scale=scaling, enable_gqa=q_NHLD.shape[1] != k_NKLD.shape[1]
        )
        outs_TiHD.append(out_NHLD.transpose(1, 2).flatten(0, 1))
    return torch.cat(outs_TiHD)[None]
