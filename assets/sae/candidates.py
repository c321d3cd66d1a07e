"""Which few scores can exceed a bound, from one int8 product: four times faster than float32, and none is missed.

A score x . w + b exceeds the bound where x . w/|w| exceeds t = (bound - b) / |w|. Both vectors are written as whole
numbers times a step, x = s X + e and w/|w| = u W + r, and by Cauchy and Schwarz

    x . w/|w|  <=  s u X.W + |e| + |s X| |r|

t is rounded down to T steps of c u, where c / s is a whole number for every token: X.W - (c / s) T is then one product
of rows with a few more columns, compared with one number per token.
Shapes: B tokens, D components, F latents, E = D + `SHARES`, N candidates.
"""

import torch

from assets.sae.entries import true_entries

LARGEST = 127
"""Of an int8, with either sign."""
SHARES = 8
"""Columns that T is divided among, so that it may be so many times larger than an entry of W."""
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
        torch.ops.aten._int_mm.out(block_BE, encoder_FE.T, out=product_BF[:rows])
        torch.ge(product_BF[:rows], least_B[start : start + block, None], out=is_candidate_BF[:rows])
        found.append(true_entries(is_candidate_BF[:rows]) + start * width)
    return torch.cat(found)


def _in_whole_numbers(
    input_BD: torch.Tensor, encoder_FD: torch.Tensor, bias_F: torch.Tensor, bound: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of the product, and the least value of a candidate for every token."""
    # what float32 may be off by, here and in the exact score, relative to |x| and to t
    rounding = (input_BD.shape[1] + 8) * 2.0**-22
    length_F, largest_F = _sizes(encoder_FD)
    unit = max(float((largest_F / length_F).max()) / LARGEST, _TINY)
    encoder_FE, rest_F = _rounded(encoder_FD, length_F * unit)
    rest = float((rest_F / length_F).max())

    distance_F = (bound - bias_F.double() - rounding * (abs(bound) + bias_F.abs())) / length_F
    distance_F -= rounding * distance_F.abs()
    largest_B = _largest(input_BD)
    # a t that is too large for T only adds candidates, one that is too small would lose them
    c = max(float(largest_B.mean()), -1.01 * float(distance_F.min()) / (unit * LARGEST * SHARES), _TINY)
    whole_B = (LARGEST * c / largest_B.clamp(min=c)).floor_().clamp_(min=1)
    step_B = c / whole_B
    tokens_BE, error_B = _rounded(input_BD, step_B)
    tokens_BE[:, -SHARES:] = whole_B[:, None]
    T_F = (distance_F / (c * unit)).floor_().clamp_(max=LARGEST * SHARES)
    encoder_FE[:, -SHARES:] = ((torch.arange(SHARES) - T_F[:, None]) / SHARES).floor_()

    length_B = torch.linalg.vector_norm(input_BD, dim=1)
    off_B = error_B + (length_B + error_B) * rest + rounding * length_B
    return tokens_BE, encoder_FE, (-off_B / (step_B * unit)).floor_().clamp_(min=-2.0e9).int()


def _sizes(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Length of each row, never 0, and its largest entry."""
    parts = [(torch.linalg.vector_norm(part, dim=1), _largest(part)) for part in rows.split(BLOCK)]
    length, largest = (torch.cat(found) for found in zip(*parts, strict=True))
    return length.clamp_(min=_TINY), largest


def _largest(rows: torch.Tensor) -> torch.Tensor:
    """Largest size of an entry of each row; a tenth of the time of torch's maximum norm."""
    return torch.maximum(rows.amax(dim=1), -rows.amin(dim=1))


def _rounded(rows: torch.Tensor, step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every row as whole numbers times its step, int8 with `SHARES` columns to fill, and the length of what is lost."""
    room = torch.empty(len(rows), rows.shape[1] + SHARES, dtype=torch.int8)
    lost = torch.empty_like(step)
    blocks = (tensor.split(BLOCK) for tensor in (rows, step, room, lost))
    for rows_B, step_B, room_B, lost_B in zip(*blocks, strict=True):
        scaled = rows_B / step_B[:, None]
        whole = scaled.round().clamp_(-LARGEST, LARGEST)
        room_B[:, :-SHARES] = whole
        torch.linalg.vector_norm(scaled.sub_(whole), dim=1, out=lost_B)
    return room, lost.mul_(step)
