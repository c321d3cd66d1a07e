"""The sparse step against a dense autograd implementation written from the definition."""

import pytest
import torch

from assets.sae import sparse_step
from assets.sae.batchtopk import Weights
from assets.sae.config import SaeConfig
from assets.sae.sparse_step import SparseStep, StepResult
from tests.assets.sae.conftest import Preset

TOKENS, WIDTH, LATENTS, K = 37, 12, 50, 3


def build_weights(seed: int, unit: bool) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(LATENTS, WIDTH, generator=generator)
    if unit:
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
    return Weights(
        W_enc_FD=torch.randn(LATENTS, WIDTH, generator=generator),
        b_enc_F=0.3 * torch.randn(LATENTS, generator=generator),
        W_dec_FD=W_dec,
        b_dec_D=torch.randn(WIDTH, generator=generator),
    )


def keep_largest(scores: torch.Tensor, count: int) -> torch.Tensor:
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[torch.sort(scores.flatten(), descending=True).indices[:count]] = True
    return mask.view_as(scores)


def reference(
    config: SaeConfig, weights: Weights, x: torch.Tensor, dead: torch.Tensor, variance: float, per_token: bool
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients by autograd over dense [B, F] tensors."""
    W_enc, b_enc, W_dec, b_dec = (tensor.clone().double().requires_grad_() for tensor in weights.tensors())
    x = x.double()

    def latents_of(source: torch.Tensor) -> torch.Tensor:
        pre = source @ W_enc.T + b_enc
        return torch.relu(pre) if config.activation == "relu" else pre

    def scores_of(latents: torch.Tensor) -> torch.Tensor:
        return (latents * W_dec.norm(dim=1)).detach()

    encoded = x - b_dec if config.center else x
    latents = latents_of(encoded)
    if per_token:
        mask = torch.stack([keep_largest(row, config.k) for row in scores_of(latents)])
    else:
        mask = keep_largest(scores_of(latents), config.k * len(x))
    reconstruction = (latents * mask) @ W_dec + b_dec
    loss = ((x - reconstruction) ** 2).sum() / (len(x) * variance)
    if config.auxiliary != "none" and dead.any():
        error = (x - reconstruction).detach()
        source = encoded if config.auxiliary == "residual" else error
        revived = latents_of(source)
        scores = torch.where(dead, scores_of(revived), -torch.inf)
        mask = torch.stack([keep_largest(row, min(config.auxiliary_k, int(dead.sum()))) for row in scores])
        missing = ((error - (revived * mask) @ W_dec) ** 2).sum()
        if config.auxiliary == "residual":
            missing = missing / ((error - error.mean(0)) ** 2).sum()
        else:
            missing = missing / (len(x) * variance)
        loss = loss + config.auxiliary_coefficient * missing
    gradients = list(torch.autograd.grad(loss, (W_enc, b_enc, W_dec, b_dec)))
    if config.decoder == "unit":
        along = (gradients[2] * W_dec.detach()).sum(1, keepdim=True)
        gradients[2] = gradients[2] - along * W_dec.detach()
    return float(loss.detach()), gradients


def gradients_of(result: StepResult) -> tuple[torch.Tensor, ...]:
    """In the order of the weights."""
    return (*result.backward.encoder(), *result.backward.decoder())


@pytest.fixture(params=[False, True])
def filtered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an int8 product rules scores out first: on every CPU both ways, for batches of any size."""
    monkeypatch.setattr(sparse_step, "FEWEST_FILTERED", 0)
    monkeypatch.setattr(sparse_step, "filter_is_faster", lambda _device: request.param)


@pytest.mark.parametrize("preset", ["default", "authors"])
@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("num_dead", [0, 2, 30])
@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize("seed", [0, 1])
def test_sparse_gradients_equal_dense_autograd(preset: Preset, per_token: bool, num_dead: int, seed: int) -> None:
    config = SaeConfig(preset=preset, k=K, auxiliary_k=5)
    weights = build_weights(seed, unit=config.decoder == "unit")
    x = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(100 + seed)) * 2
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[:num_dead] = True
    variance = 7.0
    result = SparseStep(config, variance, per_token)(weights, x, dead)
    loss, gradients = reference(config, weights, x, dead, variance, per_token)
    assert result.fvu + config.auxiliary_coefficient * result.auxiliary == pytest.approx(loss, rel=1e-5)
    assert (result.auxiliary > 0) == (num_dead > 0)
    for ours, theirs in zip(gradients_of(result), gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.usefixtures("filtered")
def test_gradients_do_not_depend_on_the_threshold_carried_from_other_batches() -> None:
    config = SaeConfig(k=K)
    weights = build_weights(3, unit=True)
    x = torch.randn(TOKENS, WIDTH)
    none_dead = torch.zeros(LATENTS, dtype=torch.bool)
    fresh = SparseStep(config, 1.0)(weights, x, none_dead)
    for factor in (100.0, 0.001):
        step = SparseStep(config, 1.0)
        step(weights, x * factor, none_dead)
        again = step(weights, x, none_dead)
        for ours, theirs in zip(gradients_of(again), gradients_of(fresh), strict=True):
            assert torch.equal(ours, theirs)


def test_a_batch_activates_k_latents_per_token_on_average_and_not_per_token() -> None:
    config = SaeConfig(k=K)
    x = torch.randn(TOKENS, WIDTH) * torch.linspace(0.1, 5, TOKENS)[:, None]
    assert len(SparseStep(config, 1.0)._select(build_weights(4, unit=True), x, None).row_N) == K * TOKENS


def test_fewer_positive_scores_than_k_activate_only_those() -> None:
    weights = build_weights(5, unit=True)
    weights.b_enc_F.fill_(-1000.0)
    weights.b_enc_F[7] = 1000.0
    pairs = SparseStep(SaeConfig(k=K), 1.0)._select(weights, torch.randn(TOKENS, WIDTH), None)
    assert pairs.row_N.tolist() == list(range(TOKENS))
    assert pairs.latent_N.tolist() == [7] * TOKENS


def test_dead_latents_that_no_token_can_revive_leave_the_other_gradients_alone() -> None:
    config = SaeConfig(k=K, auxiliary_k=5)
    weights = build_weights(6, unit=True)
    weights.b_enc_F[:2] = -1000.0
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[:2] = True
    x = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(6))
    result = SparseStep(config, 7.0)(weights, x, dead)
    _, gradients = reference(config, weights, x, dead, 7.0, per_token=False)
    for ours, theirs in zip(gradients_of(result), gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
