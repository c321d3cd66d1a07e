"""The auxiliary loss of dead latents, as dense products over the few that there may be: for a CUDA graph.

The host knows how many those are at most, so every shape is fixed; sparse products over tokens x `auxiliary_k` pairs
take longer. Shapes: B tokens, D components, F latents, C places for dead ones.
"""

from typing import NamedTuple

import torch

from assets.sae.batchtopk import Weights, floor_of
from assets.sae.config import SaeConfig
from assets.sae.sparse_rows import sum_of_squares
from assets.sae.static_encode import Encoded, scores_of


class Idle(NamedTuple):
    """All dead latents, in places of which some may be left over."""

    latent_C: torch.Tensor
    """0 where `dead_C` is not: nothing is added to it."""
    dead_C: torch.Tensor
    """bool"""

    @classmethod
    def of(cls, dead_F: torch.Tensor, room: int) -> "Idle":
        """At most `room` latents are dead: so many places."""
        latent_C = torch.nonzero_static(dead_F, size=room, fill_value=-1).view(-1)
        return cls(latent_C.clamp(min=0), latent_C >= 0)


class Revived(NamedTuple):
    """What the auxiliary loss came to, and its gradients for the dead latents."""

    latent_C: torch.Tensor
    auxiliary: torch.Tensor
    decoder_CD: torch.Tensor
    encoder_CD: torch.Tensor
    bias_C: torch.Tensor


def revive(
    config: SaeConfig, weights: Weights, encoded: Encoded, idle: Idle, error_BD: torch.Tensor, per_entry: float
) -> Revived:
    """Dead latents alone rebuild the error; that of a batch has a variance of 1 / `per_entry`."""
    W_enc_CD, b_enc_C, W_dec_CD = (each.index_select(0, idle.latent_C) for each in weights.tensors()[:3])
    norm_C = None if encoded.norm_F is None else encoded.norm_F.index_select(0, idle.latent_C)
    if config.auxiliary == "residual":
        source_BD, scores_BC = encoded.source_BD, encoded.scored.scores_BF.index_select(1, idle.latent_C)
        unit = 1 / sum_of_squares(error_BD - error_BD.mean(dim=0)).clamp(min=1e-30)
    else:
        few = Weights(W_enc_CD, b_enc_C, W_dec_CD, weights.b_dec_D)
        source_BD, scores_BC, unit = error_BD, scores_of(few, norm_C, error_BD), per_entry
    fires_BC = _fires(scores_BC.where(idle.dead_C, -torch.inf), config.auxiliary_k, floor_of(config))
    value_BC = torch.where(fires_BC, scores_BC if norm_C is None else scores_BC / norm_C, 0.0)
    missing_BD = torch.addmm(error_BD, value_BC, W_dec_CD, alpha=-1)
    slope_BD = missing_BD * (-2 * config.auxiliary_coefficient * unit)
    slope_BC = slope_BD @ W_dec_CD.T * fires_BC
    return Revived(
        latent_C=idle.latent_C,
        auxiliary=sum_of_squares(missing_BD) * unit * idle.dead_C.any(),
        decoder_CD=value_BC.T @ slope_BD,
        encoder_CD=slope_BC.T @ source_BD,
        bias_C=slope_BC.sum(dim=0),
    )


def _fires(scores_BC: torch.Tensor, k: int, floor: float) -> torch.Tensor:
    """bool: which scores are above the floor and among the `k` largest of their token."""
    above_BC = scores_BC > floor
    if k >= scores_BC.shape[1]:
        return above_BC
    best = torch.topk(scores_BC, k, dim=1, sorted=False)
    return torch.zeros_like(above_BC).scatter_(1, best.indices, best.values > floor)
