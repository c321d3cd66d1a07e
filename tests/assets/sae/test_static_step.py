"""The step that a CUDA graph repeats, against the dense reference and the sparse step; it runs on a CPU as it is."""

import pytest
import torch

from assets.sae.batchtopk import Weights, floor_of
from assets.sae.config import SaeConfig
from assets.sae.sparse_step import SparseStep
from assets.sae.static_selection import Scored, Selection, choose, most_above, of_batch, of_bounded
from assets.sae.static_step import StaticResult, encode, static_step
from tests.assets.sae.test_sparse_step import LATENTS, TOKENS, WIDTH, K, build_weights, gradients_of, reference


def take(
    config: SaeConfig, weights: Weights, variance: float, x: torch.Tensor, dead: torch.Tensor | None, how: Selection
) -> StaticResult:
    """One step; for `bounded` with a bound that leaves half again as many scores as are wanted."""
    bound = torch.tensor(torch.nan)
    if how == "bounded":
        scores = encode(config, weights, x, bound).scored.scores_BF.flatten()
        bound = scores.sort(descending=True).values[3 * config.k * len(x) // 2]
    encoded = encode(config, weights, x, bound)
    chosen = choose(how, encoded.scored, config.k, floor_of(config))
    return static_step(config, weights, variance, encoded, chosen, dead)


@pytest.mark.parametrize("preset", ["default", "authors"])
@pytest.mark.parametrize("selection", ["bounded", "batch", "rows"])
@pytest.mark.parametrize("num_dead", [None, 0, 2, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_its_gradients_equal_dense_autograd(preset: str, selection: Selection, num_dead: int | None, seed: int) -> None:
    config = SaeConfig(preset=preset, k=K, auxiliary_k=5)  # pyright: ignore[reportArgumentType]
    weights = build_weights(seed, unit=config.decoder == "unit")
    x = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(100 + seed)) * 2
    dead = torch.arange(LATENTS) < (num_dead or 0)
    result = take(config, weights, 7.0, x, None if num_dead is None else dead, selection)
    loss, gradients = reference(config, weights, x, dead, 7.0, selection == "rows")
    assert float(result.fvu + config.auxiliary_coefficient * result.auxiliary) == pytest.approx(loss, rel=1e-5)
    assert bool(result.auxiliary > 0) == bool(num_dead)
    for ours, theirs in zip(result.gradients, gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("preset", ["default", "authors"])
def test_it_reports_what_the_sparse_step_reports(preset: str) -> None:
    config = SaeConfig(preset=preset, k=K, auxiliary_k=5)  # pyright: ignore[reportArgumentType]
    weights = build_weights(5, unit=config.decoder == "unit")
    x, dead = torch.randn(TOKENS, WIDTH), torch.arange(LATENTS) % 3 == 0
    step = SparseStep(config, 7.0)
    expected, found = step(weights, x, dead), take(config, weights, 7.0, x, dead, "bounded")
    assert float(found.fvu) == pytest.approx(expected.fvu, rel=1e-5)
    assert float(found.auxiliary) == pytest.approx(expected.auxiliary, rel=1e-5)
    assert step.threshold.carried is not None
    assert float(found.smallest) == pytest.approx(step.threshold.carried, rel=1e-5)
    assert torch.equal(found.fired_F, expected.fired_F)
    for ours, theirs in zip(found.gradients, gradients_of(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_a_batch_in_which_fewer_scores_than_wanted_are_positive_selects_those() -> None:
    """One latent of 50 can fire; nothing but it moves, and its smallest score is the threshold."""
    weights = Weights(
        torch.zeros(LATENTS, WIDTH), torch.full((LATENTS,), -1.0), torch.eye(LATENTS, WIDTH), torch.zeros(WIDTH)
    )
    weights.W_enc_FD[3, 0] = 2.0
    x = torch.ones(TOKENS, WIDTH)
    x[0, 0] = 0.75
    result = take(SaeConfig(k=K), weights, 1.0, x, None, "batch")
    assert float(result.smallest) == 0.5
    assert result.fired_F.nonzero().flatten().tolist() == [3]
    assert result.gradients[0].any(dim=1).nonzero().flatten().tolist() == [3]


def test_a_batch_that_activates_nothing_has_no_threshold_and_moves_only_the_bias() -> None:
    weights = Weights(*(torch.zeros(size) for size in [(LATENTS, WIDTH), LATENTS, (LATENTS, WIDTH), WIDTH]))
    result = take(SaeConfig(k=K), weights, 1.0, torch.ones(TOKENS, WIDTH), None, "batch")
    assert float(result.smallest) == torch.inf
    assert not result.fired_F.any()
    assert [bool(gradient.any()) for gradient in result.gradients] == [False, False, False, True]


@pytest.mark.parametrize("extra", [0, 1, 5, 12])
def test_a_bound_leaves_exactly_the_largest_of_which_ties_go_to_the_lower_place(extra: int) -> None:
    """Scores are few whole numbers, so that the last place is tied; `extra` more than wanted exceed the bound."""
    scores = torch.randint(1, 8, (6, 10), generator=torch.Generator().manual_seed(extra)).float()
    count = int((scores >= 5).sum()) - extra
    above = scores > 4
    assert most_above(count) >= count + extra
    found = of_bounded(Scored(scores, above, above.sum()), count, 0.0)
    expected = torch.sort(scores.flatten(), descending=True, stable=True).indices[:count].sort().values
    assert (found.row_N * 10 + found.latent_N).tolist() == expected.tolist()
    assert found.value_N.tolist() == scores.flatten()[expected].tolist()
    assert of_batch(scores, count, 0.0).value_N.sort().values.tolist() == found.value_N.sort().values.tolist()
