"""Which latents fire on which tokens: from every score, or from those that an int8 product cannot rule out.

Both take float32 states, the encoder by latents, its bias and thresholds; triples come sorted by token, then latent.
Shapes: B tokens, D components, F latents, N active (token, latent) pairs.
"""

import torch

from assets.sae.candidates import candidates
from assets.sae.entries import places
from assets.sae.latents import SparseLatents
from assets.sae.scores import CPU_ROWS_AT_ONCE, BlockScores
from assets.sae.sparse_rows import dots

ROUNDING = 2.0**-20
"""What float32 may be off by in a bias or a threshold, relative to it, and a little more."""
LEAST_MARGIN = -1e30
"""Stands for a threshold that nothing reaches, so that bounds stay finite."""


def encode_densely(
    state_BD: torch.Tensor, W_enc_FD: torch.Tensor, b_enc_F: torch.Tensor, threshold_F: torch.Tensor
) -> SparseLatents:
    """Every score, compared."""
    flat_N, value_N = BlockScores(state_BD, W_enc_FD, b_enc_F).above(threshold_F)
    return SparseLatents(*places(flat_N, len(b_enc_F)), value_N)


def encode_filtered(
    state_BD: torch.Tensor, W_enc_FD: torch.Tensor, b_enc_F: torch.Tensor, threshold_F: torch.Tensor
) -> SparseLatents:
    """The few scores that may pass, each a function of its token and latent alone; on a CPU, for at least one token."""
    bias_F, limit_F = b_enc_F.double(), threshold_F.double().clamp(max=-LEAST_MARGIN)
    margin_F = (bias_F - limit_F + ROUNDING * (bias_F.abs() + limit_F.abs())).clamp(min=LEAST_MARGIN)
    product_BF = torch.empty(CPU_ROWS_AT_ONCE, len(b_enc_F), dtype=torch.int32)
    row_N, latent_N = places(candidates(state_BD, W_enc_FD, margin_F, 0.0, product_BF), len(b_enc_F))
    value_N = dots(row_N, latent_N, state_BD, W_enc_FD) + b_enc_F[latent_N]
    fires_N = value_N > threshold_F[latent_N]
    return SparseLatents(row_N[fires_N], latent_N[fires_N], value_N[fires_N])
