"""The scores of a batch of tokens, and which of them exceed a bound: from one dense product, exact or rough.

A CPU with bfloat16 tiles (AMX) makes the rough product several times faster than the float32 one. A rough score is off
by less than a bound that Cauchy and Schwarz give for each token, so that it tells which few scores must be computed
exactly; no score that counts is missed. Shapes: B tokens, D components, F latents, N entries.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import torch

from assets.sae.sparse_rows import dots

SAMPLE_STRIDE = 61
"""Every how many scores a threshold is estimated from; coprime with usual widths."""
BFLOAT16_ROUNDING = 2.0**-9
"""Largest relative error of a number rounded to bfloat16 (8 significant bits)."""
FLOAT32_ROUNDING = 2.0**-23


class Selected(NamedTuple):
    """Some entries of a batch of scores."""

    flat_N: torch.Tensor
    """int64 indices into the flattened [B, F] scores, ascending."""
    score_N: torch.Tensor


class Scores(Protocol):
    """What a selection asks of a batch's scores."""

    def sample(self) -> torch.Tensor:
        """Every 61st score, perhaps roughly: for a first estimate."""
        ...

    def above(self, bound: float) -> Selected:
        """Exactly the scores greater than `bound`."""
        ...

    def columns(self, latent_K: torch.Tensor) -> torch.Tensor:
        """All scores of some latents: [B, K]."""
        ...


@dataclass(frozen=True)
class DenseScores:
    """Every score in float32."""

    scores_BF: torch.Tensor

    def sample(self) -> torch.Tensor:
        """Every 61st score."""
        return self.scores_BF.view(-1)[::SAMPLE_STRIDE].contiguous()

    def above(self, bound: float) -> Selected:
        """Exactly the scores greater than `bound`."""
        flat_N = above(self.scores_BF, bound)
        return Selected(flat_N, self.scores_BF.view(-1).index_select(0, flat_N))

    def columns(self, latent_K: torch.Tensor) -> torch.Tensor:
        """All scores of some latents: [B, K]."""
        return self.scores_BF.index_select(1, latent_K)


class FilteredScores:
    """Every score in bfloat16, and in float32 those that a bound asks for."""

    def __init__(
        self,
        input_BD: torch.Tensor,
        encoder_FD: torch.Tensor,
        bias_F: torch.Tensor,
        rough_BF: torch.Tensor | None = None,
    ) -> None:
        """scores = input @ encoder.T + bias, on a CPU; `rough_BF` (bfloat16) is memory to use again."""
        self._input_BD, self._encoder_FD, self._bias_F = input_BD, encoder_FD, bias_F
        if rough_BF is None:
            rough_BF = torch.empty(len(input_BD), len(bias_F), dtype=torch.bfloat16)
        self._rough_BF = rough_BF
        torch.addmm(bias_F.bfloat16(), input_BD.bfloat16(), encoder_FD.bfloat16().T, out=rough_BF)
        # |x.w - x'.w'| <= |x - x'| |w| + |x'| |w - w'|, rounding is off by a share of each number, and sums round too
        product_B = _norms(input_BD) * float(_norms(encoder_FD).max())
        share = 2.01 * BFLOAT16_ROUNDING + input_BD.shape[1] * FLOAT32_ROUNDING
        self._off_B = share * product_B + 2 * BFLOAT16_ROUNDING * float(bias_F.abs().max())

    def sample(self) -> torch.Tensor:
        """Every 61st score, roughly."""
        return self._rough_BF.view(-1)[::SAMPLE_STRIDE].float()

    def above(self, bound: float) -> Selected:
        """Exactly the scores greater than `bound`."""
        width = len(self._bias_F)
        flat_N = self._candidates(bound)
        row_N = torch.div(flat_N, width, rounding_mode="floor")
        latent_N = flat_N - row_N * width
        score_N = dots(row_N, latent_N, self._input_BD, self._encoder_FD) + self._bias_F.index_select(0, latent_N)
        keep_N = score_N > bound
        return Selected(flat_N.masked_select(keep_N), score_N.masked_select(keep_N))

    def columns(self, latent_K: torch.Tensor) -> torch.Tensor:
        """All scores of some latents: [B, K]."""
        return torch.addmm(self._bias_F[latent_K], self._input_BD, self._encoder_FD[latent_K].T)

    def _candidates(self, bound: float) -> torch.Tensor:
        """Flat indices of a superset of the scores above `bound`, ascending."""
        if bound <= 0:
            return above(torch.addmm(self._bias_F, self._input_BD, self._encoder_FD.T), bound)
        # Rounding is monotone: what is at least `low` before it is at least the rounded `low` after it. Positive
        # bfloat16 numbers are ordered as the integers with the same bits, and all negative ones lie below them.
        low_B = (bound * (1 - 2 * BFLOAT16_ROUNDING) - self._off_B).bfloat16()
        least_B = low_B.view(torch.int16).masked_fill(low_B <= 0, -(2**15))
        bits_BF = self._rough_BF.view(torch.int16).numpy()
        return torch.from_numpy(np.flatnonzero(np.greater_equal(bits_BF, least_B.numpy()[:, None])))


def above(scores_BF: torch.Tensor, bound: float) -> torch.Tensor:
    """Flat indices of the scores greater than `bound`, ascending."""
    if scores_BF.is_cuda:
        return (scores_BF > bound).flatten().nonzero().flatten()
    # numpy compares and lists bools about five times faster than torch does on a CPU
    return torch.from_numpy(np.flatnonzero(np.greater(scores_BF.numpy(), np.float32(bound))))


@cache
def rough_is_faster(device: str) -> bool:
    """Whether the device multiplies bfloat16 several times faster than float32, and numpy can read its memory."""
    return device == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def _norms(x_BD: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x_BD, dim=1)
