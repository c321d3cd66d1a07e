"""The scores of a batch of tokens, and which of them exceed a bound: from one dense product, in float32 or int8.

The int8 product (`assets/sae/candidates.py`) tells which few scores must be computed exactly; none that counts is
missed. Shapes: B tokens, D components, F latents, N entries.
"""

from abc import ABC, abstractmethod
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from assets.sae.candidates import candidates, int8_saturates
from assets.sae.entries import places, true_entries
from assets.sae.sparse_rows import dots
from resources.onednn import linear

ROWS_AT_ONCE = 4096
"""Tokens per dense product on a GPU: 59 MB of scores for 3584 latents."""
CPU_ROWS_AT_ONCE = 256
"""The same on a CPU: 3.7 MB are still in the cache when they are compared; with 2048 that costs 4 x as much."""
FEWEST_FILTERED = 600
"""Tokens from which rounding the encoder to int8 costs less than it saves."""
SAMPLE_STRIDE = 61
"""Every how many scores a threshold is estimated from; coprime with usual widths."""


class Selected(NamedTuple):
    """Some entries of a batch of scores."""

    flat_N: torch.Tensor
    """int64 indices into the flattened [B, F] scores, ascending."""
    score_N: torch.Tensor

    def chosen(self, entry_M: torch.Tensor) -> "Selected":
        """Some of them, by their places here."""
        return Selected(self.flat_N.index_select(0, entry_M), self.score_N.index_select(0, entry_M))


class Scores(ABC):
    """A batch's scores, computed when they are asked for."""

    def __init__(self, input_BD: torch.Tensor, encoder_FD: torch.Tensor, bias_F: torch.Tensor) -> None:
        """scores = input @ encoder.T + bias."""
        self._input_BD, self._encoder_FD, self._bias_F = input_BD, encoder_FD, bias_F

    @abstractmethod
    def above(self, bound: float) -> Selected:
        """Exactly the scores greater than `bound`."""

    def sample(self) -> torch.Tensor:
        """Every 61st score: for a first estimate."""
        return self._exactly(torch.arange(0, len(self._input_BD) * len(self._bias_F), SAMPLE_STRIDE))

    def _exactly(self, flat_N: torch.Tensor) -> torch.Tensor:
        row_N, latent_N = places(flat_N, len(self._bias_F))
        return dots(row_N, latent_N, self._input_BD, self._encoder_FD) + self._bias_F.index_select(0, latent_N)


class BlockScores(Scores):
    """Every score in float32, of a few tokens at a time."""

    def above(self, bound: float | torch.Tensor) -> Selected:
        """Exactly the scores greater than `bound`, one number or one for each latent."""
        rows = ROWS_AT_ONCE if self._input_BD.is_cuda else CPU_ROWS_AT_ONCE
        found: list[Selected] = []
        for start in range(0, max(1, len(self._input_BD)), rows):
            scores_BF = linear(self._input_BD[start : start + rows], self._encoder_FD, self._bias_F)
            flat_N = above(scores_BF, bound)
            score_N = scores_BF.view(-1).index_select(0, flat_N)
            found.append(Selected(flat_N + start * len(self._bias_F), score_N))
        flat, score = zip(*found, strict=True)
        return Selected(torch.cat(flat), torch.cat(score))


class FilteredScores(Scores):
    """The scores that an int8 product cannot rule out, in float32; on a CPU."""

    def __init__(
        self, input_BD: torch.Tensor, encoder_FD: torch.Tensor, bias_F: torch.Tensor, product_BF: torch.Tensor
    ) -> None:
        """`product_BF`: see `candidates`."""
        super().__init__(input_BD, encoder_FD, bias_F)
        self._product_BF = product_BF

    def above(self, bound: float) -> Selected:
        """Exactly the scores greater than `bound`."""
        if bound > -torch.inf:
            flat_N = candidates(self._input_BD, self._encoder_FD, self._bias_F, bound, self._product_BF)
        else:
            flat_N = torch.arange(len(self._input_BD) * len(self._bias_F))
        score_N = self._exactly(flat_N)
        return Selected(flat_N, score_N).chosen(true_entries(score_N > bound))


def above(scores_BF: torch.Tensor, bound: float | torch.Tensor) -> torch.Tensor:
    """Flat indices of the scores greater than `bound`, one number or one for each latent, ascending."""
    if scores_BF.is_cuda:
        return true_entries(scores_BF > bound)
    # numpy compares several times faster than torch does on one thread of a CPU
    limit = bound.numpy() if isinstance(bound, torch.Tensor) else np.float32(bound)
    return true_entries(torch.from_numpy(np.greater(scores_BF.numpy(), limit)))


@cache
def filter_is_faster(device: str) -> bool:
    """Whether the device multiplies int8 much faster than float32, and without saturating, as VNNI does."""
    return device == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_vnni", False)) and not int8_saturates()
