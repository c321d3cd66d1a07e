"""One training step in tensors of fixed shapes, of which the host learns nothing: what a CUDA graph can repeat.

A GPU takes longer to be told what a step of 512 tokens does than to do it. The mathematics is that of `sparse_step.py`
and `backward.py`; a selected score that does not count keeps its place with an activation of 0. It has two halves,
between which the host may ask how many scores exceed a bound.
Shapes: B tokens, D components, F latents, N selected (token, latent) pairs.
"""

from typing import NamedTuple

import torch

from assets.sae.batchtopk import Weights, floor_of, score_norms
from assets.sae.config import SaeConfig
from assets.sae.sparse_rows import dots_by_owner, sum_rows
from assets.sae.static_selection import Chosen, Scored, integers_to, of_rows


class Term(NamedTuple):
    """One sum of decoder rows whose error is a term of the loss."""

    chosen: Chosen
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


class Encoded(NamedTuple):
    """A batch and its scores."""

    shifted_BD: torch.Tensor
    """The input without the decoder's bias."""
    source_BD: torch.Tensor
    """What the encoder read."""
    norm_F: torch.Tensor | None
    """What scores carry beside the activation."""
    scored: Scored


def encode(config: SaeConfig, weights: Weights, input_BD: torch.Tensor, bound: torch.Tensor) -> Encoded:
    """The dense product, of scaled input."""
    shifted_BD = input_BD - weights.b_dec_D
    source_BD = shifted_BD if config.center else input_BD
    norm_F = score_norms(config, weights)
    scores_BF = _scores(weights, norm_F, source_BD)
    above_BF = scores_BF > bound
    return Encoded(shifted_BD, source_BD, norm_F, Scored(scores_BF, above_BF, above_BF.sum()))


def static_step(
    config: SaeConfig, weights: Weights, variance: float, encoded: Encoded, chosen: Chosen, dead_F: torch.Tensor | None
) -> StaticResult:
    """Loss and gradients of one batch; `dead_F` (bool) are the latents to revive, None: surely none."""
    rows = len(encoded.shifted_BD)
    chosen = _activations(chosen, encoded.norm_F)
    error_BD = encoded.shifted_BD - _decoded(chosen, weights, rows)
    per_entry = 1 / (rows * variance)
    terms = [Term(chosen, encoded.source_BD, error_BD * (-2 * per_entry))]
    auxiliary = error_BD.new_zeros(())
    if dead_F is not None:
        term, auxiliary = _revive(config, weights, encoded, dead_F, error_BD, per_entry)
        terms.append(term)
    score_N = torch.where(chosen.counts_N, chosen.score_N, torch.inf)
    fired_F = torch.zeros_like(weights.b_enc_F, dtype=torch.int32)
    fired_F.index_add_(0, chosen.latent_N, chosen.counts_N.int())
    return StaticResult(
        fvu=error_BD.square().sum() * per_entry,
        auxiliary=auxiliary,
        smallest=score_N.min(),
        fired_F=fired_F > 0,
        gradients=_gradients(config, weights, terms),
    )


def _scores(weights: Weights, norm_F: torch.Tensor | None, source_BD: torch.Tensor) -> torch.Tensor:
    if norm_F is None:
        return torch.addmm(weights.b_enc_F, source_BD, weights.W_enc_FD.T)
    return torch.addmm(weights.b_enc_F * norm_F, source_BD, (weights.W_enc_FD * norm_F[:, None]).T)


def _activations(chosen: Chosen, norm_F: torch.Tensor | None) -> Chosen:
    """Values as activations: scores carry the decoder's norm where it is free."""
    return chosen if norm_F is None else chosen._replace(value_N=chosen.value_N / norm_F[chosen.latent_N])


def _begins(owner_N: torch.Tensor, owners: int) -> torch.Tensor:
    """Where each owner's entries begin, and the end, for sorted owners: [owners + 1]."""
    return torch.searchsorted(
        owner_N, torch.arange(owners + 1, device=owner_N.device).to(owner_N.dtype), out_int32=True
    )


def _decoded(chosen: Chosen, weights: Weights, rows: int) -> torch.Tensor:
    return sum_rows(chosen.latent_N, chosen.value_N, _begins(chosen.row_N, rows)[:-1], weights.W_dec_FD)


def _revive(
    config: SaeConfig,
    weights: Weights,
    encoded: Encoded,
    dead_F: torch.Tensor,
    error_BD: torch.Tensor,
    per_entry: float,
) -> tuple[Term, torch.Tensor]:
    if config.auxiliary == "residual":
        source_BD, scores_BF = encoded.source_BD, encoded.scored.scores_BF
        unit = 1 / (error_BD - error_BD.mean(dim=0)).square().sum().clamp(min=1e-30)
    else:
        source_BD, scores_BF = error_BD, _scores(weights, encoded.norm_F, error_BD)
        unit = torch.full_like(error_BD[0, 0], per_entry)
    k = min(config.auxiliary_k, len(dead_F))
    chosen = of_rows(scores_BF.masked_fill(~dead_F, -torch.inf), k, floor_of(config))
    chosen = _activations(chosen, encoded.norm_F)
    missing_BD = error_BD - _decoded(chosen, weights, len(error_BD))
    auxiliary = missing_BD.square().sum() * unit * dead_F.any()
    return Term(chosen, source_BD, missing_BD * (-2 * config.auxiliary_coefficient * unit)), auxiliary


def _gradients(config: SaeConfig, weights: Weights, terms: list[Term]) -> tuple[torch.Tensor, ...]:
    W_enc_FD, b_enc_F, W_dec_FD, b_dec_D = (torch.zeros_like(tensor) for tensor in weights.tensors())
    for place, term in enumerate(terms):
        decoder_FD, encoder_FD, bias_F = _of_term(weights, term)
        W_dec_FD += decoder_FD
        W_enc_FD += encoder_FD
        b_enc_F += bias_F
        if place == 0:
            b_dec_D += term.slope_BD.sum(dim=0)
        if config.center and (place == 0 or config.auxiliary == "residual"):
            b_dec_D -= bias_F @ weights.W_enc_FD
    if config.decoder == "unit":
        along_F = (W_dec_FD * weights.W_dec_FD).sum(dim=1)
        W_dec_FD.addcmul_(weights.W_dec_FD, along_F[:, None], value=-1)
    return W_enc_FD, b_enc_F, W_dec_FD, b_dec_D


def _of_term(weights: Weights, term: Term) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the decoder, the encoder and its bias."""
    chosen, latents = term.chosen, len(weights.b_enc_F)
    latent_N, order_N = torch.sort(chosen.latent_N.to(integers_to(latents + 1)), stable=True)
    begin = _begins(latent_N, latents)
    row_N = chosen.row_N[order_N]
    slope_N = dots_by_owner(begin, row_N, weights.W_dec_FD, term.slope_BD) * chosen.counts_N[order_N]
    decoder_FD = sum_rows(row_N, chosen.value_N[order_N], begin[:-1], term.slope_BD)
    # a column of ones beside the inputs sums the slopes themselves, and always in the same order
    source_BE = torch.nn.functional.pad(term.source_BD, (0, 1), value=1.0)
    encoder_FE = sum_rows(row_N, slope_N, begin[:-1], source_BE)
    return decoder_FD, encoder_FE[:, :-1], encoder_FE[:, -1]
