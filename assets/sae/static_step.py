"""One training step in tensors of fixed shapes, of which the host learns nothing: what a CUDA graph can repeat.

A GPU takes longer to be told what a step of 512 tokens does than to do it. The mathematics is that of `sparse_step.py`
and `backward.py`; a selected score that does not count keeps its place with an activation of 0. It has two halves,
between which the host may ask how many scores exceed a bound.
Shapes: B tokens, D components, F latents, N selected (token, latent) pairs.
"""

from typing import NamedTuple

import torch

from assets.sae.batchtopk import Weights
from assets.sae.config import SaeConfig
from assets.sae.constants import Constants
from assets.sae.revival import Idle, Revived, revive
from assets.sae.sparse_rows import dots_by_owner, sum_by_owner, sum_of_squares
from assets.sae.static_encode import Encoded
from assets.sae.static_selection import Chosen


class ByLatent(NamedTuple):
    """Selected pairs, sorted by latent and then by token."""

    order_N: torch.Tensor
    """Their places among those sorted by token."""
    row_N: torch.Tensor
    begin_F: torch.Tensor
    """Where each latent's pairs begin, and the end."""


class Term(NamedTuple):
    """The sum of decoder rows whose error is the loss."""

    chosen: Chosen
    by_latent: ByLatent
    begin_B: torch.Tensor
    """Where each token's pairs begin, and the end."""
    source_BD: torch.Tensor
    """What its activations were computed from."""
    slope_BD: torch.Tensor
    """Gradient of the loss with respect to the decoded sum."""


class StaticResult(NamedTuple):
    """What one batch gave, all on the device."""

    fvu: torch.Tensor
    auxiliary: torch.Tensor
    smallest: torch.Tensor
    """Smallest selected score that counts; inf when none does."""
    fired_F: torch.Tensor
    gradients: tuple[torch.Tensor, ...]
    """As `Weights.tensors`."""


def static_step(
    config: SaeConfig,
    weights: Weights,
    variance: float,
    encoded: Encoded,
    chosen: Chosen,
    idle: Idle | None,
    constants: Constants,
) -> StaticResult:
    """Loss and gradients of one batch; among `idle` are all latents to revive, None: there are none."""
    chosen = _activations(chosen, encoded.norm_F)
    begin_B = torch.searchsorted(chosen.row_N, constants.row_B, out_int32=True)
    decoded_BD = sum_by_owner(begin_B, chosen.latent_N, chosen.value_N, weights.W_dec_FD)
    error_BD = encoded.shifted_BD - decoded_BD
    per_entry = 1 / (len(error_BD) * variance)
    term = Term(chosen, _by_latent(chosen, constants), begin_B, encoded.source_BD, error_BD * (-2 * per_entry))
    revived = None if idle is None else revive(config, weights, encoded, idle, error_BD, per_entry)
    fired_F, smallest = _fired(chosen, term.by_latent)
    return StaticResult(
        fvu=sum_of_squares(error_BD) * per_entry,
        auxiliary=error_BD.new_zeros(()) if revived is None else revived.auxiliary,
        smallest=smallest,
        fired_F=fired_F,
        gradients=_gradients(config, weights, term, revived, constants),
    )


def _activations(chosen: Chosen, norm_F: torch.Tensor | None) -> Chosen:
    """Values as activations: scores carry the decoder's norm where it is free."""
    return chosen if norm_F is None else chosen._replace(value_N=chosen.value_N / norm_F[chosen.latent_N])


def _by_latent(chosen: Chosen, constants: Constants) -> ByLatent:
    latent_N, order_N = torch.sort(chosen.latent_N.to(constants.latent_F.dtype), stable=True)
    return ByLatent(order_N, chosen.row_N[order_N], torch.searchsorted(latent_N, constants.latent_F, out_int32=True))


def _fired(chosen: Chosen, by_latent: ByLatent) -> tuple[torch.Tensor, torch.Tensor]:
    """Which latents have a score that counts, and the smallest of these scores."""
    begin_F = by_latent.begin_F
    if chosen.counts_N is None:
        return begin_F[1:] > begin_F[:-1], chosen.score_N.min()
    fired_F = begin_F.new_zeros(len(begin_F) - 1).index_add_(0, chosen.latent_N, chosen.counts_N.int())
    return fired_F > 0, torch.where(chosen.counts_N, chosen.score_N, torch.inf).min()


def _gradients(
    config: SaeConfig, weights: Weights, term: Term, revived: Revived | None, constants: Constants
) -> tuple[torch.Tensor, ...]:
    W_dec_FD, W_enc_FD, b_enc_F = _of_term(weights, term, constants)
    b_dec_D = constants.one_B @ term.slope_BD
    centred_F = b_enc_F  # of what was encoded without the decoder's bias
    if revived is not None:
        if config.auxiliary != "residual":
            centred_F = b_enc_F.clone()
        W_dec_FD.index_add_(0, revived.latent_C, revived.decoder_CD)
        W_enc_FD.index_add_(0, revived.latent_C, revived.encoder_CD)
        b_enc_F.index_add_(0, revived.latent_C, revived.bias_C)
    if config.center:
        b_dec_D = torch.addmv(b_dec_D, weights.W_enc_FD.T, centred_F, alpha=-1)
    if config.decoder == "unit":
        along_F = torch.linalg.vecdot(W_dec_FD, weights.W_dec_FD)
        W_dec_FD.addcmul_(weights.W_dec_FD, along_F[:, None], value=-1)
    return W_enc_FD, b_enc_F, W_dec_FD, b_dec_D


def _of_term(weights: Weights, term: Term, constants: Constants) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the decoder, the encoder and its bias."""
    chosen, (order_N, row_N, begin_F) = term.chosen, term.by_latent
    # by token, where pairs are spread evenly: by latent, the dot products take five times as long for 4096 tokens
    slope_N = dots_by_owner(term.begin_B, chosen.latent_N, term.slope_BD, weights.W_dec_FD)
    slope_N = (slope_N if chosen.counts_N is None else slope_N * chosen.counts_N)[order_N]
    return (
        sum_by_owner(begin_F, row_N, chosen.value_N[order_N], term.slope_BD),
        sum_by_owner(begin_F, row_N, slope_N, term.source_BD),
        sum_by_owner(begin_F, row_N, slope_N, constants.one_B[:, None]).view(-1),
    )
