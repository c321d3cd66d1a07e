"""Which few scores can exceed a bound, from one int8 product: faster than float32, and none is missed.

A token and a row of the encoder are written as whole numbers times a step of their own, x = s X + e and w = v W + r. By
Cauchy and Schwarz x . w + b exceeds the bound only where

    X.W  -  (bound - b) / (s v)  +  (|e| / s) (|w| / v)  >=  -|X| (|r| / v)

A batch's largest |e| / s and |r| / v stand for all of them: rounding makes them nearly equal. So the second term is a
token's c / s, a whole number by the choice of s, times a row's T = (bound - b) / (c v), rounded down; the third is a
number G of the row, rounded up; and the right side is one of the token. T and G are a few more columns of the product.
Shapes: B tokens, D components, F latents, E = D and the columns for T and G, N candidates.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from assets.sae.entries import true_entries

LARGEST = 127
"""Of an int8, with either sign."""
WHOLES = 4
"""Columns that a token's c / s is divided among: a small token may have a step that many times smaller than `LARGEST`
alone would let it have."""
SHARES = 3
"""Columns, for each of those, that T is divided among, so that it may be so many times larger than an entry of W."""
FINENESS = WHOLES / 2
"""c / s of the median token, in units of `LARGEST`."""
BLOCK = 512
"""Rows that are scaled and rounded at once: their copies stay in the second-level cache."""
_TINY = 1e-12


def candidates(
    input_BD: torch.Tensor, encoder_FD: torch.Tensor, bias_F: torch.Tensor, bound: float, product_BF: torch.Tensor
) -> torch.Tensor:
    """Flat indices into [B, F], ascending, of all scores above a finite `bound` and a few more.

    `product_BF` (int32) is memory for as many tokens as are compared at once.
    """
    width = len(bias_F)
    tokens_BE, encoder_FE, least_B = _in_whole_numbers(input_BD, encoder_FD, bias_F, bound)
    block = len(product_BF)
    is_candidate_BF = torch.empty_like(product_BF, dtype=torch.bool)
    found: list[torch.Tensor] = []
    for start in range(0, len(input_BD), block):
        block_BE = tokens_BE[start : start + block]
        rows = len(block_BE)
        int8_product(block_BE, encoder_FE.T, product_BF[:rows])
        torch.ge(product_BF[:rows], least_B[start : start + block, None], out=is_candidate_BF[:rows])
        found.append(true_entries(is_candidate_BF[:rows]) + start * width)
    return torch.cat(found)


def int8_product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Two int8 matrices multiplied into one of int32."""
    return torch.ops.aten._int_mm.out(left, right, out=out)


def int8_saturates() -> bool:
    """Whether products come out too small: without VNNI, or where ONEDNN_MAX_CPU_ISA forbids it, oneDNN adds pairs in
    16 bits.
    """
    largest = torch.full((64, 64), LARGEST, dtype=torch.int8)
    product = int8_product(largest, largest, torch.empty(64, 64, dtype=torch.int32))
    return int(product[0, 0]) != 64 * LARGEST**2


def _in_whole_numbers(
    input_BD: torch.Tensor, encoder_FD: torch.Tensor, bias_F: torch.Tensor, bound: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of the product, and the least value of a candidate for every token."""
    width = input_BD.shape[1]
    # what float32 may be off by, here and in the exact score, relative to |x| |w| and to the bound
    rounding = (width + 8) * 2.0**-22
    # rounding to whole numbers loses no more, so G is at most (D / 2 + the root of D) x LARGEST
    most_off = math.sqrt(width) / 2 + 1
    margins = math.ceil(most_off * math.sqrt(width) / LARGEST)
    added = WHOLES * SHARES + margins

    encoder = _rounded(encoder_FD, (_largest(part).div_(LARGEST) for part in encoder_FD.split(BLOCK)), added)
    distance_F = (bound - bias_F.double() - rounding * (abs(bound) + bias_F.abs())) / encoder.step
    distance_F -= rounding * distance_F.abs()

    largest_B = _largest(input_BD)
    # a T that is too large to be written only adds candidates, one that is too small would lose them
    most_T = LARGEST * SHARES
    typical = float(distance_F.kthvalue(len(distance_F) // 10 + 1).values) / most_T
    least = max(_TINY * LARGEST * WHOLES, -1.01 * float(distance_F.min()) / most_T)
    c = max(float(largest_B.median()) * FINENESS, typical, least)
    whole_B = (LARGEST * c / largest_B.clamp(min=c / WHOLES)).floor_().clamp_(min=1)
    tokens = _rounded(input_BD, (c / whole_B).split(BLOCK), added)

    off_B = tokens.lost + rounding * tokens.length
    off = min(float(off_B.max()), most_off)
    # a token too large for its step is off by more
    least_B = -(tokens.length + tokens.lost) * float(encoder.lost.max())
    least_B -= (off_B - off).clamp_(min=0) * float(encoder.length.max())

    T_F = (distance_F / c).floor_().clamp_(max=most_T)
    parts = [(T_F + place).div_(SHARES).floor_().neg_() for place in range(SHARES)]
    encoder.rows[:, width:-margins] = torch.stack(parts, dim=1).repeat(1, WHOLES)
    encoder.rows[:, -margins:] = _shared((encoder.length * (off / LARGEST)).ceil_(), margins)
    tokens.rows[:, width:-margins] = _shared(whole_B, WHOLES).repeat_interleave(SHARES, dim=1)
    tokens.rows[:, -margins:] = LARGEST
    return tokens.rows, encoder.rows, least_B.floor_().clamp_(min=-2.0e9).int()


def _shared(whole: torch.Tensor, columns: int) -> torch.Tensor:
    """Numbers from 0 on as sums of so many that fit."""
    return (whole[:, None] - LARGEST * torch.arange(columns)).clamp_(0, LARGEST)


def _largest(rows: torch.Tensor) -> torch.Tensor:
    """Largest size of an entry of each row; a tenth of the time of torch's maximum norm."""
    return torch.maximum(rows.amax(dim=1), -rows.amin(dim=1))


class _Rounded(NamedTuple):
    """Rows as whole numbers times a step, and more columns to fill."""

    rows: torch.Tensor
    step: torch.Tensor
    length: torch.Tensor
    lost: torch.Tensor
    """Lengths of the rows and of what rounding loses, both in steps."""


def _rounded(rows: torch.Tensor, steps: Iterable[torch.Tensor], added: int) -> _Rounded:
    """`steps`: of each row, block after block; one that is made when asked for finds its rows in the cache."""
    room = torch.empty(len(rows), rows.shape[1] + added, dtype=torch.int8)
    step, length, lost = (torch.empty(len(rows)) for _ in range(3))
    blocks = (tensor.split(BLOCK) for tensor in (rows, room, step, length, lost))
    for made, rows_B, room_B, step_B, length_B, lost_B in zip(steps, *blocks, strict=True):
        torch.clamp(made, min=_TINY, out=step_B)
        scaled = rows_B / step_B[:, None]
        torch.linalg.vector_norm(scaled, dim=1, out=length_B)
        whole = scaled.round().clamp_(-LARGEST, LARGEST)
        room_B[:, :-added] = whole
        torch.linalg.vector_norm(scaled.sub_(whole), dim=1, out=lost_B)
    return _Rounded(room, step, length, lost)
