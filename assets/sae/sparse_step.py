"""The loss of one batch with a single dense product; everything else, gradients too, touches active latents only.
Shapes: B tokens, D components, F latents, N active (token, latent) pairs, K dead latents.
"""

from typing import NamedTuple

import torch

from assets.sae.backward import Backward, DeadPart, Part
from assets.sae.batchtopk import Weights, floor_of, score_norms
from assets.sae.config import SaeConfig
from assets.sae.entries import places
from assets.sae.latents import SparseLatents
from assets.sae.scores import FEWEST_FILTERED, BlockScores, FilteredScores, Scores, Selected, filter_is_faster
from assets.sae.selection import Threshold, select_batch, select_rows
from assets.sae.sparse_rows import bags, sum_of_squares, sum_rows
from resources.onednn import linear

PRODUCT_TOKENS = 2048
"""Tokens whose int8 product is compared at once: more only take more memory."""


class StepResult(NamedTuple):
    """What one batch gave."""

    fvu: float
    """Squared error over the input's total variance: the main loss."""
    auxiliary: float
    """The auxiliary loss, before its coefficient; 0 without dead latents."""
    fired_F: torch.Tensor
    """bool: latents that fired in this batch."""
    backward: Backward
    """The gradients of the whole loss."""


class SparseStep:
    """Computes steps of one shape of dictionary; keeps the scores' memory and the carried threshold between them."""

    def __init__(self, config: SaeConfig, variance: float, per_token: bool = False) -> None:
        """`variance`: see `InputScale`; `per_token`: select k per token (TopK) instead of k x B per batch."""
        self._config = config
        self._variance = variance
        self._per_token = per_token
        self._floor = floor_of(config)
        self._memory = torch.empty(0)
        self.threshold = Threshold()

    def __call__(self, weights: Weights, input_BD: torch.Tensor, dead_F: torch.Tensor) -> StepResult:
        """Loss and gradients of one batch of scaled input; `dead_F` (bool) are the latents to revive."""
        config, rows = self._config, len(input_BD)
        shifted_BD = input_BD - weights.b_dec_D
        encoded_BD = shifted_BD if config.center else input_BD
        norm_F = score_norms(config, weights)
        pairs = self._select(weights, encoded_BD, norm_F)

        decoded_BD = weighted_rows(pairs, weights.W_dec_FD, rows)
        error_BD = torch.sub(shifted_BD, decoded_BD, out=decoded_BD)
        per_entry = 1 / (rows * self._variance)
        fvu = float(sum_of_squares(error_BD)) * per_entry
        dead = None
        if config.auxiliary != "none" and bool(dead_F.any()):
            dead = self._revive(weights, error_BD, encoded_BD, norm_F, dead_F)
        main = Part(pairs, weights.W_dec_FD, encoded_BD, error_BD.mul_(-2 * per_entry))
        return StepResult(
            fvu=fvu,
            auxiliary=dead.auxiliary if dead else 0.0,
            fired_F=torch.bincount(pairs.latent_N, minlength=len(weights.b_enc_F)) > 0,
            backward=Backward(main, dead, weights, config),
        )

    def _select(self, weights: Weights, encoded_BD: torch.Tensor, norm_F: torch.Tensor | None) -> SparseLatents:
        # scores = latents x decoder norm come out of the product at once when the encoder's rows carry the norm
        encoder_FD = weights.W_enc_FD if norm_F is None else weights.W_enc_FD * norm_F[:, None]
        bias_F = weights.b_enc_F if norm_F is None else weights.b_enc_F * norm_F
        rows, width, k = len(encoded_BD), len(bias_F), self._config.k
        if self._per_token:
            scores_BF = linear(encoded_BD, encoder_FD, bias_F)
            return to_pairs(select_rows(scores_BF, k, self._floor), width, norm_F)
        if rows >= FEWEST_FILTERED and filter_is_faster("cpu"):
            scores: Scores = FilteredScores(encoded_BD, encoder_FD, bias_F, self._room(rows, width))
        else:
            scores = BlockScores(encoded_BD, encoder_FD, bias_F)
        chosen = select_batch(scores, k * rows, self._floor, self.threshold)
        return to_pairs(chosen, width, norm_F)

    def _room(self, rows: int, width: int) -> torch.Tensor:
        """Memory for an int8 product that is used at every step: new pages cost as much as the product."""
        rows = min(rows, PRODUCT_TOKENS)
        if self._memory.numel() < rows * width:
            self._memory = torch.empty(rows * width, dtype=torch.int32)
        return self._memory[: rows * width].view(rows, width)

    def _revive(
        self,
        weights: Weights,
        error_BD: torch.Tensor,
        encoded_BD: torch.Tensor,
        norm_F: torch.Tensor | None,
        dead_F: torch.Tensor,
    ) -> DeadPart:
        config, rows = self._config, len(error_BD)
        dead_K = dead_F.nonzero().flatten()
        if config.auxiliary == "residual":
            source_BD = encoded_BD
            spread_BD = error_BD - error_BD.mean(dim=0)
            unit = 1 / max(float(sum_of_squares(spread_BD)), 1e-30)
        else:
            source_BD = error_BD.clone()
            unit = 1 / (rows * self._variance)
        scores_BK = linear(source_BD, weights.W_enc_FD[dead_K], weights.b_enc_F[dead_K])
        if norm_F is not None:
            scores_BK *= norm_F[dead_K]
        chosen = select_rows(scores_BK, min(config.auxiliary_k, len(dead_K)), self._floor)
        pairs = to_pairs(chosen, len(dead_K), None if norm_F is None else norm_F[dead_K])
        W_dec_KD = weights.W_dec_FD[dead_K]
        missing_BD = error_BD - weighted_rows(pairs, W_dec_KD, rows)
        auxiliary = float(sum_of_squares(missing_BD)) * unit
        slope_BD = missing_BD.mul_(-2 * unit * config.auxiliary_coefficient)
        return DeadPart(dead_K, Part(pairs, W_dec_KD, source_BD, slope_BD), auxiliary)


def to_pairs(chosen: Selected, width: int, norm_F: torch.Tensor | None) -> SparseLatents:
    """Selected scores of a [B, width] matrix as activations; `norm_F` is what scores carry beside the activation."""
    row_N, latent_N = places(chosen.flat_N, width)
    return SparseLatents(row_N, latent_N, chosen.score_N if norm_F is None else chosen.score_N / norm_F[latent_N])


def weighted_rows(pairs: SparseLatents, rows_FD: torch.Tensor, tokens: int) -> torch.Tensor:
    """For every token the sum of its latents' rows, weighted by their activations: [tokens, D]."""
    return sum_rows(pairs.latent_N, pairs.value_N, bags(pairs.row_N, tokens), rows_FD)
