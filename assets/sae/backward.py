"""Exact gradients of one batch from its active pairs: one dot product for each, and sums of rows.

A matrix's gradient is made when it is asked for, so that it can be applied while it is still in the cache.
Shapes: B tokens, D components, F latents, N active (token, latent) pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from assets.sae.batchtopk import Weights
from assets.sae.config import SaeConfig
from assets.sae.sparse_rows import bags, dots, sum_all_rows, sum_rows

_INT16_MAX = 2**15
MatrixAndBias = tuple[torch.Tensor, torch.Tensor]
"""The gradients of a layer."""


class Pairs(NamedTuple):
    """Active latents, sorted by token, then latent."""

    row_N: torch.Tensor
    latent_N: torch.Tensor
    value_N: torch.Tensor


class Part(NamedTuple):
    """One sum of decoder rows whose error is a term of the loss."""

    pairs: Pairs
    source_BD: torch.Tensor
    """What its activations were computed from."""
    slope_BD: torch.Tensor
    """Gradient of the loss with respect to the decoded sum."""
    main: bool
    """The decoder bias is added to the main part only."""


class Backward:
    """The gradients of all parts together."""

    def __init__(self, parts: Sequence[Part], weights: Weights, config: SaeConfig) -> None:
        """Everything that needs the weights as they were in the forward pass, but for `decoder`."""
        self._weights, self._unit = weights, config.decoder == "unit"
        self._parts = [_ByLatent.of(part, weights) for part in parts]
        encoder_bias_F = [part.by_latent(part.slope_N) for part in self._parts]
        b_dec_D = torch.zeros_like(weights.b_dec_D)
        for part, b_enc_F in zip(parts, encoder_bias_F, strict=True):
            if part.main:
                b_dec_D += part.slope_BD.sum(dim=0)
            if config.center and (part.main or config.auxiliary == "residual"):
                b_dec_D -= sum_all_rows(b_enc_F, weights.W_enc_FD)
        self._b_dec_D, self._b_enc_F = b_dec_D, _summed(encoder_bias_F)

    def decoder(self) -> MatrixAndBias:
        """Of W_dec [F, D], before it changes, and b_dec [D]."""
        W_dec_FD = _summed([part.decoder_FD() for part in self._parts])
        if self._unit:
            # a row's gradient along itself is the sum of value x slope over its pairs: no pass over the matrix
            along_F = _summed([part.by_latent(part.part.pairs.value_N * part.slope_N) for part in self._parts])
            W_dec_FD.addcmul_(self._weights.W_dec_FD, along_F[:, None], value=-1)
        return W_dec_FD, self._b_dec_D

    def encoder(self) -> MatrixAndBias:
        """Of W_enc [F, D] and b_enc [F]."""
        return _summed([part.encoder_FD() for part in self._parts]), self._b_enc_F


class _ByLatent(NamedTuple):
    """A part's pairs with the gradients of their activations, and their order by latent."""

    part: Part
    slope_N: torch.Tensor
    order_N: torch.Tensor
    row_sorted_N: torch.Tensor
    begin_F: torch.Tensor

    @classmethod
    def of(cls, part: Part, weights: Weights) -> "_ByLatent":
        """One dot product for each pair, and a sort."""
        row_N, latent_N, _ = part.pairs
        order_N = _order_by_latent(latent_N)
        return cls(
            part,
            dots(row_N, latent_N, part.slope_BD, weights.W_dec_FD),
            order_N,
            row_N.index_select(0, order_N),
            bags(latent_N, len(weights.b_enc_F)),
        )

    def by_latent(self, value_N: torch.Tensor) -> torch.Tensor:
        """Each latent's sum, [F]; torch counts nothing in integers, whatever the weights are."""
        latent_N = self.part.pairs.latent_N
        return torch.bincount(latent_N, weights=value_N, minlength=len(self.begin_F)).to(value_N.dtype)

    def decoder_FD(self) -> torch.Tensor:
        """Each latent's slopes, weighted by its activations."""
        return self._rows(self.part.pairs.value_N, self.part.slope_BD)

    def encoder_FD(self) -> torch.Tensor:
        """Each latent's inputs, weighted by its activations' gradients."""
        return self._rows(self.slope_N, self.part.source_BD)

    def _rows(self, weight_N: torch.Tensor, rows_BD: torch.Tensor) -> torch.Tensor:
        return sum_rows(self.row_sorted_N, weight_N.index_select(0, self.order_N), self.begin_F, rows_BD)


def _summed(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    total, *others = terms
    for other in others:
        total.add_(other)
    return total


def _order_by_latent(latent_N: torch.Tensor) -> torch.Tensor:
    """Stable order by latent; on a CPU a 16-bit radix sort, a tenth of torch's time."""
    if latent_N.is_cuda:
        return torch.argsort(latent_N, stable=True)
    keys = latent_N.numpy()
    small = keys.astype(np.int16) if len(keys) and keys.max() < _INT16_MAX else keys
    return torch.from_numpy(np.argsort(small, kind="stable"))
