"""Products of bfloat16 matrices with a float32 adapter on a GPU, without float32 copies of the bfloat16 matrices.

A float32 number is the sum of three bfloat16 numbers, and of two to 2^-16. Such parts, side by side in one matrix, make
one bfloat16 product of what would be three: it accumulates in float32, as PEFT's arithmetic does, and reads the wide
matrix once. `torch.mm` into another dtype exists on CUDA only.
Shapes: I inputs and O outputs of the adapted matrix, R rank, K parts of all ranks and zeros.
"""

from collections.abc import Sequence

import torch

ALIGNED = 8
"""Entries in 16 bytes of bfloat16: a product whose rows are no multiple is given a kernel that loads less at once."""


def split(x: torch.Tensor, parts: int) -> list[torch.Tensor]:
    """The bfloat16 numbers nearest to x, then to the rest, and so on: three sum to a normal float32."""
    found = []
    for _ in range(parts):
        found.append(x.bfloat16())
        x = x - found[-1]
    return found


class NarrowProducts:
    """One component's A and B, split once."""

    def __init__(self, A_RI: torch.Tensor, B_RO: torch.Tensor) -> None:
        """A and B in float32, B times the adapter's scale."""
        self._rank = len(A_RI)
        self._A_KI = _side_by_side(split(A_RI.T, 3)).T.contiguous()
        high_OR, low_OR = split(B_RO.T, 2)
        self._B_KO = _side_by_side([high_OR, high_OR, low_OR]).T.contiguous()

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """A x for bfloat16 x [..., I], in float32: [..., R]."""
        parts_K = torch.mm(x.reshape(-1, x.shape[-1]), self._A_KI.T, out_dtype=torch.float32)
        state_R = parts_K[:, : 3 * self._rank].unflatten(-1, (3, self._rank)).sum(-2)
        return state_R.view(*x.shape[:-1], self._rank)

    def add_update_(self, out: torch.Tensor, state: torch.Tensor) -> None:
        """Adds B of a float32 state [..., R], to 2^-16 of it, to contiguous bfloat16 out [..., O], and rounds once."""
        high, low = split(state.reshape(-1, self._rank), 2)
        out.view(-1, out.shape[-1]).addmm_(_side_by_side([high, low, high]), self._B_KO)


def _side_by_side(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Columns of all parts, then columns of zeros up to the alignment."""
    num_rows, rank = parts[0].shape
    return torch.cat([*parts, parts[0].new_zeros(num_rows, -len(parts) * rank % ALIGNED)], dim=-1)
