"""The dictionary's weights while they are trained: how they start, what input they see, how they are folded for use.

Shapes: B tokens, D components that enter, F latents. The encoder lies as [F, D], so that a latent's two weight vectors
are rows and every sparse product reads and writes whole rows.
"""

from dataclasses import dataclass

import torch

from assets.sae.config import SaeConfig

MEDIAN_STEPS = 100
"""Weiszfeld iterations at most (dictionary_learning: 100)."""
MEDIAN_TOLERANCE = 1e-5
"""A shorter iteration is the last."""
FITTED_TOKENS = 4096
"""Tokens, at most, on which the encoder's first bias is fitted."""


@dataclass(frozen=True)
class Weights:
    """The four tensors of a sparse autoencoder, in the scale of its input. Changed in place by the optimiser."""

    W_enc_FD: torch.Tensor
    b_enc_F: torch.Tensor
    W_dec_FD: torch.Tensor
    b_dec_D: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All four, in a fixed order."""
        return (self.W_enc_FD, self.b_enc_F, self.W_dec_FD, self.b_dec_D)


@dataclass(frozen=True)
class InputScale:
    """What the raw state is divided by before training, and the variance that makes the loss scale-free."""

    scale_D: torch.Tensor
    """Positive; 1 for a column that never moves."""
    variance: float
    """Total variance of the scaled input, summed over columns: the loss is a fraction of it."""
    moves_D: torch.Tensor
    """bool: columns with more than one value in the sample."""

    def apply(self, state_BD: torch.Tensor) -> torch.Tensor:
        """Float32 input of the dictionary from raw states of any float type."""
        if state_BD.is_cuda:  # one kernel instead of two
            return state_BD / self.scale_D
        input_BD = state_BD.float()
        return input_BD / self.scale_D if input_BD is state_BD else input_BD.div_(self.scale_D)


def measure_scale(sample_BD: torch.Tensor, mode: str) -> InputScale:
    """The scale that `sae.input_scale` asks for, measured on a sample of raw states."""
    deviation_D = sample_BD.double().std(dim=0, correction=0)
    if mode == "column":
        scale_D = torch.where(deviation_D > 0, deviation_D, 1.0)
    else:
        power = float(deviation_D.square().mean().sqrt()) if mode == "scalar" else 1.0
        scale_D = torch.full_like(deviation_D, power or 1.0)
    variance = float((deviation_D / scale_D).square().sum())
    return InputScale(scale_D.float(), variance or 1.0, deviation_D > 0)


def start_weights(config: SaeConfig, sample_BD: torch.Tensor, latents: int) -> Weights:
    """Random unit decoder rows, the encoder a copy of norm `encoder_start`, and the biases.

    `sample_BD` is scaled input; the numbers depend on `config.seed`, not on the device. A column that never moves
    starts at zero in every row: nothing would ever correct its random weights.
    """
    generator = torch.Generator().manual_seed(config.seed)
    W_dec_FD = torch.randn(latents, sample_BD.shape[1], generator=generator)
    moves_D = (sample_BD != sample_BD[0]).any(dim=0)
    if bool(moves_D.any()):
        W_dec_FD *= moves_D.cpu()
    W_dec_FD /= W_dec_FD.norm(dim=1, keepdim=True)
    b_dec_D = geometric_median(sample_BD) if config.bias_start == "median" else torch.zeros_like(sample_BD[0])
    bias = 0.0
    if config.encoder_bias_start == "fitted":
        thinned_BD = sample_BD[:: -(-len(sample_BD) // FITTED_TOKENS)].cpu()
        bias = fitting_bias(config, W_dec_FD, thinned_BD, b_dec_D.cpu())
    return Weights(
        W_enc_FD=(config.encoder_start * W_dec_FD).to(sample_BD.device),
        b_enc_F=torch.full((latents,), bias, device=sample_BD.device),
        W_dec_FD=W_dec_FD.to(sample_BD.device),
        b_dec_D=b_dec_D,
    )


def fitting_bias(config: SaeConfig, W_dec_FD: torch.Tensor, sample_BD: torch.Tensor, b_dec_D: torch.Tensor) -> float:
    """The encoder bias, one for all latents, with which a sample's first reconstructions have the least error.

    sum over firing latents of (norm x score + bias) x decoder row is linear in the bias.
    """
    target_BD = sample_BD - b_dec_D
    scores_BF = config.encoder_start * (target_BD if config.center else sample_BD) @ W_dec_FD.T
    bar = torch.topk(scores_BF.view(-1), config.k * len(scores_BF), sorted=False).values.min()
    fires_BF = (scores_BF >= bar) & (scores_BF > floor_of(config))
    error_BD = target_BD - (scores_BF * fires_BF) @ W_dec_FD
    rows_BD = fires_BF.float() @ W_dec_FD
    power = float(rows_BD.square().sum())
    return float((error_BD * rows_BD).sum()) / power if power > 0 else 0.0


def geometric_median(points_BD: torch.Tensor) -> torch.Tensor:
    """The point with the least summed distance to all points, by Weiszfeld's iteration."""
    guess_D = points_BD.mean(dim=0)
    for _ in range(MEDIAN_STEPS):
        nearness_B = 1 / (points_BD - guess_D).norm(dim=1).clamp(min=1e-12)
        moved_D = (nearness_B[:, None] * points_BD).sum(dim=0) / nearness_B.sum()
        done = bool((moved_D - guess_D).norm() < MEDIAN_TOLERANCE)
        guess_D = moved_D
        if done:
            break
    return guess_D


def learning_rate(config: SaeConfig, step: int, steps: int) -> float:
    """The rate of 0-based `step`: linear rise, flat, linear fall to 0 at `steps`."""
    rise = min(1.0, (step + 1) / (config.warmup_steps + 1))
    fall_steps = config.decay_fraction * steps
    fall = min(1.0, (steps - step) / fall_steps) if fall_steps > 0 else 1.0
    return config.learning_rate * min(rise, fall)


def score_norms(config: SaeConfig, weights: Weights) -> torch.Tensor | None:
    """Decoder norms [F] that scores carry, or None where the decoder is held at norm 1."""
    return weights.W_dec_FD.norm(dim=1) if config.decoder == "free" else None


def floor_of(config: SaeConfig) -> float:
    """A score that does not exceed it does not count."""
    return 0.0 if config.activation == "relu" else -torch.inf


@dataclass(frozen=True)
class Folded:
    """Weights that take and give raw states, the bias folded in: pre-activation = state @ W_enc_DF + b_enc_F."""

    W_enc_DF: torch.Tensor
    b_enc_F: torch.Tensor
    W_dec_FD: torch.Tensor
    b_dec_D: torch.Tensor
    norm_F: torch.Tensor
    """What a latent is multiplied by to become a score; threshold_f = threshold / norm_f."""


def fold(config: SaeConfig, weights: Weights, scale_D: torch.Tensor) -> Folded:
    """Fold input scale and centring into the weights; latents and scores keep their values."""
    W_enc_FD, b_enc_F, W_dec_FD, b_dec_D = (tensor.double() for tensor in weights.tensors())
    norms_F = score_norms(config, weights)
    return Folded(
        W_enc_DF=(W_enc_FD / scale_D).T.float().contiguous(),
        b_enc_F=(b_enc_F - W_enc_FD @ b_dec_D if config.center else b_enc_F).float(),
        W_dec_FD=(W_dec_FD * scale_D).float(),
        b_dec_D=(b_dec_D * scale_D).float(),
        norm_F=torch.ones_like(weights.b_enc_F) if norms_F is None else norms_F,
    )
