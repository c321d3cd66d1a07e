"""Loss and exact gradients of one batch with a single dense product; everything else touches active latents only.

Decoding and both weight gradients are weighted sums of rows; the gradient of an activation is one dot product per
active latent.
Shapes: B tokens, D components, F latents, N active (token, latent) pairs, M pairs of dead latents.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from assets.sae.batchtopk import Weights, score_norms
from assets.sae.config import SaeConfig
from assets.sae.scores import DenseScores, FilteredScores, Scores, Selected, filter_is_faster
from assets.sae.selection import Threshold, select_batch, select_rows
from assets.sae.sparse_rows import bags, dots, places, sum_all_rows, sum_rows

PRODUCT_TOKENS = 2048
"""Tokens whose int8 product is compared at once: more only take more memory."""
_INT16_MAX = 2**15


class Pairs(NamedTuple):
    """Active latents, sorted by token, then latent."""

    row_N: torch.Tensor
    latent_N: torch.Tensor
    value_N: torch.Tensor


@dataclass(frozen=True)
class Gradients:
    """Gradients of the whole loss, in the order of `Weights`."""

    W_enc_FD: torch.Tensor
    b_enc_F: torch.Tensor
    W_dec_FD: torch.Tensor
    b_dec_D: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All four, in the order of `Weights.tensors`."""
        return (self.W_enc_FD, self.b_enc_F, self.W_dec_FD, self.b_dec_D)


class StepResult(NamedTuple):
    """What one batch gave."""

    fvu: float
    """Squared error over the input's total variance: the main loss."""
    auxiliary: float
    """The auxiliary loss, before its coefficient; 0 without dead latents."""
    active: int
    """Pairs selected."""
    fired_F: torch.Tensor
    """bool: latents that fired in this batch."""
    gradients: Gradients


class SparseStep:
    """Computes steps of one shape of dictionary; keeps the scores' memory and the carried threshold between them."""

    def __init__(
        self,
        config: SaeConfig,
        variance: float,
        per_token: bool = False,
        filtered: bool | None = None,
    ) -> None:
        """`variance`: see `InputScale`; `per_token`: select k per token (TopK) instead of k x B per batch.

        `filtered`: compute only scores that an int8 product leaves (see `FilteredScores`); None: where it is faster.
        """
        self._config = config
        self._variance = variance
        self._per_token = per_token
        self._floor = 0.0 if config.activation == "relu" else -torch.inf
        self._filtered = filtered
        self._memory = torch.empty(0)
        self.threshold = Threshold()

    def __call__(self, weights: Weights, input_BD: torch.Tensor, dead_F: torch.Tensor) -> StepResult:
        """Loss and gradients of one batch of scaled input; `dead_F` (bool) are the latents to revive."""
        config, rows = self._config, len(input_BD)
        shifted_BD = input_BD - weights.b_dec_D
        encoded_BD = shifted_BD if config.center else input_BD
        norm_F = score_norms(config, weights)
        scores, pairs = self._select(weights, encoded_BD, norm_F)

        decoded_BD = weighted_rows(pairs, weights.W_dec_FD, rows)
        error_BD = torch.sub(shifted_BD, decoded_BD, out=decoded_BD)
        per_entry = 1 / (rows * self._variance)
        fvu = float(_sum_of_squares(error_BD)) * per_entry
        revived = None
        if config.auxiliary != "none" and bool(dead_F.any()):
            revived = self._revive(weights, scores, error_BD, encoded_BD, norm_F, dead_F)
        main = _Part(pairs, encoded_BD, error_BD.mul_(-2 * per_entry), main=True)
        return StepResult(
            fvu=fvu,
            auxiliary=revived[1] if revived else 0.0,
            active=len(pairs.row_N),
            fired_F=torch.bincount(pairs.latent_N, minlength=len(weights.b_enc_F)) > 0,
            gradients=_gradients([main, revived[0]] if revived else [main], weights, config),
        )

    def _select(self, weights: Weights, encoded_BD: torch.Tensor, norm_F: torch.Tensor | None) -> tuple[Scores, Pairs]:
        # scores = latents x decoder norm come out of the product at once when the encoder's rows carry the norm
        encoder_FD = weights.W_enc_FD if norm_F is None else weights.W_enc_FD * norm_F[:, None]
        bias_F = weights.b_enc_F if norm_F is None else weights.b_enc_F * norm_F
        rows, width, k = len(encoded_BD), len(bias_F), self._config.k
        if self._per_token or not self._filters(encoded_BD.device.type):
            room_BF = self._room(rows, width, encoded_BD.dtype, encoded_BD.device)
            scores: Scores = DenseScores(torch.addmm(bias_F, encoded_BD, encoder_FD.T, out=room_BF))
            if self._per_token:
                return scores, to_pairs(select_rows(room_BF, k, self._floor), width, norm_F)
        else:
            product_BF = self._room(min(rows, PRODUCT_TOKENS), width, torch.int32, encoded_BD.device)
            scores = FilteredScores(encoded_BD, encoder_FD, bias_F, product_BF)
        chosen = select_batch(scores, k * rows, self._floor, self.threshold)
        return scores, to_pairs(chosen, width, norm_F)

    def _filters(self, device: str) -> bool:
        return filter_is_faster(device) if self._filtered is None else self._filtered

    def _room(self, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """[rows, width] of memory that is used at every step: new pages cost as much as the product."""
        if self._memory.numel() < rows * width:
            self._memory = torch.empty(rows * width, dtype=dtype, device=device)
        return self._memory[: rows * width].view(rows, width)

    def _revive(
        self,
        weights: Weights,
        scores: Scores,
        error_BD: torch.Tensor,
        encoded_BD: torch.Tensor,
        norm_F: torch.Tensor | None,
        dead_F: torch.Tensor,
    ) -> tuple["_Part", float]:
        config, rows = self._config, len(error_BD)
        dead_K = dead_F.nonzero().flatten()
        if config.auxiliary == "residual":
            source_BD = encoded_BD
            scores_BK = scores.columns(dead_K)
            spread_BD = error_BD - error_BD.mean(dim=0)
            unit = 1 / max(float(_sum_of_squares(spread_BD)), 1e-30)
        else:
            source_BD = error_BD.clone()
            scores_BK = torch.addmm(weights.b_enc_F[dead_K], error_BD, weights.W_enc_FD[dead_K].T)
            if norm_F is not None:
                scores_BK *= norm_F[dead_K]
            unit = 1 / (rows * self._variance)
        chosen = select_rows(scores_BK, min(config.auxiliary_k, len(dead_K)), self._floor)
        pairs = to_pairs(chosen, len(dead_K), None if norm_F is None else norm_F[dead_K])
        pairs = pairs._replace(latent_N=dead_K[pairs.latent_N])
        missing_BD = error_BD - weighted_rows(pairs, weights.W_dec_FD, rows)
        auxiliary = float(_sum_of_squares(missing_BD)) * unit
        slope_BD = missing_BD.mul_(-2 * unit * config.auxiliary_coefficient)
        return _Part(pairs, source_BD, slope_BD, main=False), auxiliary


class _Part(NamedTuple):
    """One sum of decoder rows whose error is a term of the loss."""

    pairs: Pairs
    source_BD: torch.Tensor
    """What its activations were computed from."""
    slope_BD: torch.Tensor
    """Gradient of the loss with respect to the decoded sum."""
    main: bool
    """The decoder bias is added to the main part only."""


def to_pairs(chosen: Selected, width: int, norm_F: torch.Tensor | None) -> Pairs:
    """Selected scores of a [B, width] matrix as activations; `norm_F` is what scores carry beside the activation."""
    row_N, latent_N = places(chosen.flat_N, width)
    return Pairs(row_N, latent_N, chosen.score_N if norm_F is None else chosen.score_N / norm_F[latent_N])


def _sum_of_squares(x_BD: torch.Tensor) -> torch.Tensor:
    return torch.dot(x_BD.view(-1), x_BD.view(-1))


def weighted_rows(pairs: Pairs, rows_FD: torch.Tensor, tokens: int) -> torch.Tensor:
    """For every token the sum of its latents' rows, weighted by their activations: [tokens, D]."""
    return sum_rows(pairs.latent_N, pairs.value_N, bags(pairs.row_N, tokens), rows_FD)


def _order_by_latent(latent_N: torch.Tensor) -> torch.Tensor:
    """Stable order by latent; on a CPU a 16-bit radix sort, a tenth of torch's time."""
    if latent_N.is_cuda:
        return torch.argsort(latent_N, stable=True)
    keys = latent_N.numpy()
    small = keys.astype(np.int16) if len(keys) and keys.max() < _INT16_MAX else keys
    return torch.from_numpy(np.argsort(small, kind="stable"))


def _sum_by_latent(latent_N: torch.Tensor, value_N: torch.Tensor, width: int) -> torch.Tensor:
    """[F]; torch counts nothing in integers, whatever the weights are."""
    return torch.bincount(latent_N, weights=value_N, minlength=width).to(value_N.dtype)


def _gradients(parts: list[_Part], weights: Weights, config: SaeConfig) -> Gradients:
    width = len(weights.b_enc_F)
    sums: list[list[torch.Tensor]] = []
    for part in parts:
        row_N, latent_N, value_N = part.pairs
        slope_N = dots(row_N, latent_N, part.slope_BD, weights.W_dec_FD)
        order_N = _order_by_latent(latent_N)
        begin_F, row_sorted_N = bags(latent_N, width), row_N.index_select(0, order_N)
        b_enc_F = _sum_by_latent(latent_N, slope_N, width)
        b_dec_D = part.slope_BD.sum(dim=0) if part.main else torch.zeros_like(weights.b_dec_D)
        if config.center and (part.main or config.auxiliary == "residual"):
            b_dec_D -= sum_all_rows(b_enc_F, weights.W_enc_FD)
        W_dec_FD = sum_rows(row_sorted_N, value_N.index_select(0, order_N), begin_F, part.slope_BD)
        if config.decoder == "unit":
            # a row's gradient along itself is the sum of value x slope over its pairs: no pass over the matrix
            along_F = _sum_by_latent(latent_N, value_N * slope_N, width)
            W_dec_FD.addcmul_(weights.W_dec_FD, along_F[:, None], value=-1)
        W_enc_FD = sum_rows(row_sorted_N, slope_N.index_select(0, order_N), begin_F, part.source_BD)
        sums.append([W_enc_FD, b_enc_F, W_dec_FD, b_dec_D])
    total, *others = sums
    for other in others:
        for mine, more in zip(total, other, strict=True):
            mine.add_(more)
    return Gradients(*total)
