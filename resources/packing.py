"""Many rollouts laid end to end as one row, so that a forward pass computes no padding token.

The model must have been given `resources.attention.use_varlen_attention`, which keeps the rollouts apart.
Shapes: T tokens of all rollouts together, 1 the batch axis that transformers expects, N rollouts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

if TYPE_CHECKING:
    import torch

TokenIds = np.ndarray
"""int32[T]: the token ids of one rollout."""


@dataclass(frozen=True)
class Packed:
    """Rollouts end to end; token t of rollout n stands at `cu_seqlens[n] + t`."""

    input_ids_1T: np.ndarray
    """int64."""
    position_ids_1T: np.ndarray
    """int64; starts at 0 in every rollout."""
    cu_seqlens: np.ndarray
    """int32[N + 1]: where each rollout begins, and the end."""
    lengths: tuple[int, ...]
    """Tokens of each rollout."""


class ForwardKwargs(TypedDict):
    """What a transformers Qwen2 takes for one packed row; all but the first three reach the attention."""

    input_ids: "torch.Tensor"
    position_ids: "torch.Tensor"
    use_cache: bool
    cu_seqlens: "torch.Tensor"
    rollout_lengths: tuple[int, ...]


def pack(rollouts: Sequence[TokenIds]) -> Packed:
    """Lay rollouts end to end in the given order.

    Raises:
        ValueError: for no rollouts or an empty one.
    """
    lengths = tuple(len(rollout) for rollout in rollouts)
    if not lengths or min(lengths) == 0:
        raise ValueError("cannot pack an empty rollout")
    return Packed(
        input_ids_1T=np.concatenate(rollouts).astype(np.int64)[None],
        position_ids_1T=np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])[None],
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        lengths=lengths,
    )


def forward_kwargs(packed: Packed, device: "str | torch.device") -> ForwardKwargs:
    """The arguments of one forward pass; add `logits_to_keep` or the like beside them."""
    import torch

    return {
        "input_ids": torch.from_numpy(packed.input_ids_1T).to(device),
        "position_ids": torch.from_numpy(packed.position_ids_1T).to(device),
        "use_cache": False,
        "cu_seqlens": torch.from_numpy(packed.cu_seqlens).to(device),
        "rollout_lengths": packed.lengths,
    }


def batches_by_length(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Indices of rollouts in batches of at most `tokens_per_batch` tokens, longest first.

    A rollout longer than that stands alone. Longest first shows a lack of memory at once and lets processes that take
    batches in turn end together; equal lengths are neighbours, so that attention computes them in one call.
    """
    return grouped(sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)), lengths, tokens_per_batch)


def grouped(order: Iterable[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices of `lengths` in this order, in groups of at most `most` tokens; what is longer stands alone."""
    groups: list[list[int]] = []
    room = 0
    for i in order:
        if not groups or lengths[i] > room:
            groups.append([])
            room = most
        groups[-1].append(i)
        room -= lengths[i]
    return groups
