"""Other dictionaries on the same tokens, at the same width and budget, to compare the BatchTopK SAE with.

Each has an L0 near k: TopK (Gao et al. 2024), JumpReLU (Rajamanoharan et al. 2024, with a quadratic pull to L0 = k),
the k largest principal components, and matching pursuit with k directions of a random dictionary.
Shapes: B tokens, E columns that entered training, F latents, K principal components.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from assets.sae.batchtopk import InputScale, floor_of, learning_rate, start_weights
from assets.sae.config import SAMPLE_TOKENS, Baseline, SaeConfig
from assets.sae.evaluate import Errors
from assets.sae.fit import Fit
from assets.sae.selection import select_rows
from assets.sae.shuffle import Order
from assets.sae.sparse_step import to_pairs, weighted_rows
from resources.onednn import linear
from resources.parts import noted
from resources.progress import Progress

Rebuild = Callable[[torch.Tensor], tuple[torch.Tensor, int]]
"""Scaled input [B, E] -> (its reconstruction [B, E], active pairs)."""

BANDWIDTH = 0.2
"""Width of JumpReLU's straight-through window, as a share of the starting threshold."""
L0_PULL = 10.0
"""Weight of (L0 / k - 1)^2 in JumpReLU's loss: strong enough to end within a few percent of k."""


@dataclass(frozen=True)
class Budget:
    """What every baseline gets."""

    config: SaeConfig
    order: Order
    scale: InputScale
    latents: int
    center_E: torch.Tensor
    """What cosines are taken around, unscaled."""
    device: str
    scratch: Path
    """Outlives a killed attempt."""

    def sample(self) -> torch.Tensor:
        """The first sample, scaled: [B, E]."""
        return self.scale.apply(torch.from_numpy(self.order.sample(SAMPLE_TOKENS)).to(self.device))


def compare(budget: Budget, states: Iterable[torch.Tensor], progress: Progress) -> list[dict[str, str | float]]:
    """Train every baseline of `sae.baselines` and measure it on held-out states [B, E], unscaled.

    One that an earlier attempt finished is read from its file in `budget.scratch`.
    """
    states = list(states)
    rows: list[dict[str, str | float]] = []
    for name in budget.config.baselines:
        done = budget.scratch / f"baseline-{name}.json"
        if done.exists():
            rows.append(json.loads(done.read_text()))
            continue
        rebuild = _BUILDERS[name](budget, progress)
        errors = Errors(budget.center_E)
        active = 0
        with torch.no_grad():
            for state_BE in states:
                rebuilt_BE, pairs = rebuild(budget.scale.apply(state_BE))
                errors.add(state_BE, rebuilt_BE * budget.scale.scale_D)
                active += pairs
        rows.append({"dictionary": name, "fvu": errors.fvu, "l0": active / errors.tokens, "cosine": errors.cosine})
        with noted(done) as partial:
            partial.write_text(json.dumps(rows[-1]))
    return rows


def train_topk(budget: Budget, progress: Progress) -> Rebuild:
    """The same training with k latents per token instead of k x B per batch."""
    config = budget.config
    fit = Fit(config, budget.order, budget.latents, budget.device, per_token=True)
    weights = fit.run(progress, "TopK step", budget.scratch / "topk.safetensors").weights
    norm_F = weights.W_dec_FD.norm(dim=1)

    def rebuild(input_BE: torch.Tensor) -> tuple[torch.Tensor, int]:
        encoded_BE = input_BE - weights.b_dec_D if config.center else input_BE
        scores_BF = linear(encoded_BE, weights.W_enc_FD, weights.b_enc_F) * norm_F
        pairs = to_pairs(select_rows(scores_BF, config.k, floor_of(config)), scores_BF.shape[1], norm_F)
        return weighted_rows(pairs, weights.W_dec_FD, len(input_BE)) + weights.b_dec_D, len(pairs.row_N)

    return rebuild


class _Jump(torch.autograd.Function):
    """Heaviside step of (x - threshold) with a rectangle kernel's gradient for the threshold."""

    @staticmethod
    def forward(ctx: Any, x_BF: torch.Tensor, threshold_F: torch.Tensor, width: float) -> torch.Tensor:
        ctx.save_for_backward(x_BF, threshold_F)
        ctx.width = width
        return (x_BF > threshold_F).to(x_BF.dtype)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, slope_BF: torch.Tensor
    ) -> tuple[None, torch.Tensor, None]:
        x_BF, threshold_F = ctx.saved_tensors
        near_BF = ((x_BF - threshold_F).abs() < ctx.width / 2) / ctx.width
        return None, -(near_BF * slope_BF).sum(dim=0), None


def train_jumprelu(budget: Budget, progress: Progress) -> Rebuild:
    """A threshold per latent, learned through straight-through gradients; dense autograd."""
    config, order = budget.config, budget.order
    sample_BE = budget.sample()
    # a full-size encoder: the width of the straight-through window is set by the scores at the start
    weights = start_weights(
        config.model_copy(update={"encoder_start": 1.0, "encoder_bias_start": "zero"}), sample_BE, budget.latents
    )

    def scores(input_BE: torch.Tensor) -> torch.Tensor:
        return torch.relu(linear(input_BE - weights.b_dec_D, weights.W_enc_FD, weights.b_enc_F))

    first_BF = scores(sample_BE[: order.batch_tokens])
    start = float(torch.topk(first_BF.flatten(), config.k * len(first_BF)).values.min())
    # where k x B is more than what is positive, the window is as wide as what is
    width = BANDWIDTH * (start or float(first_BF[first_BF > 0].mean()))
    threshold_F = torch.full_like(weights.b_enc_F, start)
    parameters = [*weights.tensors(), threshold_F]
    adam = torch.optim.Adam([tensor.requires_grad_() for tensor in parameters], fused=True)
    steps = max(1, round(config.epochs * order.batches_per_epoch))
    for step, batch_BE in enumerate(order.batches(0, steps, budget.device)):
        input_BE = budget.scale.apply(batch_BE)
        scores_BF = scores(input_BE)
        gate_BF = _Jump.apply(scores_BF, threshold_F, width)
        rebuilt_BE = (scores_BF * gate_BF) @ weights.W_dec_FD + weights.b_dec_D
        fvu = (input_BE - rebuilt_BE).square().sum() / (len(batch_BE) * budget.scale.variance)
        loss = fvu + L0_PULL * (gate_BF.sum() / (len(batch_BE) * config.k) - 1).square()
        adam.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = learning_rate(config, step, steps)
        adam.step()
        with torch.no_grad():
            weights.W_dec_FD.div_(weights.W_dec_FD.norm(dim=1, keepdim=True))
            threshold_F.clamp_(min=0)
        progress.step("JumpReLU step", step + 1, steps)

    def rebuild(input_BE: torch.Tensor) -> tuple[torch.Tensor, int]:
        latents_BF = scores(input_BE)
        latents_BF *= latents_BF > threshold_F
        return latents_BF @ weights.W_dec_FD + weights.b_dec_D, int((latents_BF > 0).sum())

    return rebuild


def fit_pca(budget: Budget, progress: Progress) -> Rebuild:  # noqa: ARG001
    """The k directions of largest variance: dense, the best linear code with k numbers per token."""
    sample_BE = budget.sample().double()
    mean_E = sample_BE.mean(dim=0)
    vectors_EE = torch.linalg.eigh((sample_BE - mean_E).T @ (sample_BE - mean_E)).eigenvectors
    basis_EK = vectors_EE[:, -budget.config.k :].float()
    mean_E = mean_E.float()

    def rebuild(input_BE: torch.Tensor) -> tuple[torch.Tensor, int]:
        code_BK = (input_BE - mean_E) @ basis_EK
        return code_BK @ basis_EK.T + mean_E, code_BK.numel()

    return rebuild


def draw_random(budget: Budget, progress: Progress) -> Rebuild:  # noqa: ARG001
    """Matching pursuit: k times the random direction that explains most of what is left. What no training gives."""
    sample_BE = budget.sample()
    weights = start_weights(budget.config, sample_BE, budget.latents)
    mean_E = sample_BE.mean(dim=0)

    def rebuild(input_BE: torch.Tensor) -> tuple[torch.Tensor, int]:
        left_BE = input_BE - mean_E
        for _ in range(budget.config.k):
            scores_BF = linear(left_BE, weights.W_dec_FD)
            best_B = scores_BF.abs().argmax(dim=1)
            left_BE = left_BE - scores_BF.gather(1, best_B[:, None]) * weights.W_dec_FD[best_B]
        return input_BE - left_BE, budget.config.k * len(input_BE)

    return rebuild


_BUILDERS: dict[Baseline, Callable[[Budget, Progress], Rebuild]] = {
    "topk": train_topk,
    "jumprelu": train_jumprelu,
    "pca": fit_pca,
    "random": draw_random,
}
