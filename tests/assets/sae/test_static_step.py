"""The step that a CUDA graph repeats, against the dense reference and the sparse step; it runs on a CPU as it is."""

from typing import Literal

import pytest
import torch

from assets.sae import revival, static_encode
from assets.sae.batchtopk import Weights, floor_of
from assets.sae.config import SaeConfig
from assets.sae.constants import Constants
from assets.sae.revival import Idle
from assets.sae.sparse_step import SparseStep
from assets.sae.static_encode import encode, on_tensor_cores
from assets.sae.static_selection import (
    Selection,
    choose,
    integers_to,
    most_above,
    of_batch,
    of_bounded,
    scored_above,
)
from assets.sae.static_step import StaticResult, static_step
from tests.assets.sae.conftest import Preset
from tests.assets.sae.test_sparse_step import LATENTS, TOKENS, WIDTH, K, build_weights, gradients_of, reference


def take(
    config: SaeConfig,
    weights: Weights,
    variance: float,
    x: torch.Tensor,
    dead: torch.Tensor | None,
    how: Selection,
    room: int = LATENTS,
) -> StaticResult:
    """One step; for `bounded` with a bound that leaves half again as many scores as are wanted."""
    bound = torch.tensor(torch.nan)
    if how == "bounded":
        scores = encode(config, weights, x, bound).scored.scores_BF.flatten()
        bound = scores.sort(descending=True).values[3 * config.k * len(x) // 2]
    encoded = encode(config, weights, x, bound)
    chosen = choose(how, encoded.scored, config.k, floor_of(config))
    idle = None if dead is None else Idle.of(dead, room)
    constants = Constants.of(len(x), LATENTS, x.device)
    return static_step(config, weights, variance, encoded, chosen, idle, constants)


@pytest.mark.parametrize("preset", ["default", "authors"])
@pytest.mark.parametrize("selection", ["bounded", "batch", "rows"])
@pytest.mark.parametrize("num_dead", [None, 0, 2, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_its_gradients_equal_dense_autograd(
    preset: Preset, selection: Selection, num_dead: int | None, seed: int
) -> None:
    config = SaeConfig(preset=preset, k=K, auxiliary_k=5)
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
@pytest.mark.parametrize(("num_dead", "room"), [(2, 2), (2, 5), (2, 6), (5, 5), (9, 9), (9, 20), (30, 49)])
def test_dead_latents_are_revived_in_however_large_a_room(preset: Preset, num_dead: int, room: int) -> None:
    """5 of them fire per token, of fewer, as many or more; none, some or most of the room is theirs."""
    config = SaeConfig(preset=preset, k=K, auxiliary_k=5)
    weights = build_weights(7, unit=config.decoder == "unit")
    x = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(3)) * 2
    dead = torch.isin(torch.arange(LATENTS), torch.randperm(LATENTS)[:num_dead])
    result = take(config, weights, 7.0, x, dead, "bounded", room)
    loss, gradients = reference(config, weights, x, dead, 7.0, False)
    assert float(result.fvu + config.auxiliary_coefficient * result.auxiliary) == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(result.gradients, gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("auxiliary", ["residual", "reencoded_error"])
@pytest.mark.parametrize("center", [False, True])
def test_only_what_is_encoded_without_the_decoders_bias_moves_it_back(
    auxiliary: Literal["residual", "reencoded_error"], center: bool
) -> None:
    config = SaeConfig(k=K, auxiliary_k=5, auxiliary=auxiliary, center=center)
    weights, dead = build_weights(8, unit=True), torch.arange(LATENTS) < 4
    x = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(4)) * 2
    result = take(config, weights, 7.0, x, dead, "batch")
    _, gradients = reference(config, weights, x, dead, 7.0, False)
    for ours, theirs in zip(result.gradients, gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("preset", ["default", "authors"])
def test_it_reports_what_the_sparse_step_reports(preset: Preset) -> None:
    config = SaeConfig(preset=preset, k=K, auxiliary_k=5)
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


def test_where_nothing_is_missing_dead_latents_have_nothing_to_rebuild() -> None:
    """Its variance, by which their loss is divided, is 0."""
    weights = Weights(*(torch.zeros(size) for size in [(LATENTS, WIDTH), LATENTS, (LATENTS, WIDTH), WIDTH]))
    config = SaeConfig(k=K, auxiliary_k=5, auxiliary="residual")
    result = take(config, weights, 1.0, torch.zeros(TOKENS, WIDTH), torch.arange(LATENTS) < 3, "batch")
    assert float(result.auxiliary) == 0
    assert not any(gradient.any() for gradient in result.gradients)


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [(2**15, torch.int16), (2**15 + 1, torch.int32), (2**31, torch.int32), (2**31 + 1, torch.int64)],
)
def test_places_are_sorted_as_the_smallest_integers_that_hold_the_last(numbers: int, kind: torch.dtype) -> None:
    """int16 ends at 32767, int32 at 2147483647."""
    assert integers_to(numbers) == kind


def test_latents_are_counted_to_the_end_of_the_last_ones_pairs() -> None:
    """A number more than latents: 32768 of them end where no int16 reaches."""
    for latents, kind in ((2**15 - 1, torch.int16), (2**15, torch.int32)):
        constants = Constants.of(2, latents, torch.device("cpu"))
        assert constants.latent_F.dtype == kind
        assert constants.latent_F[[0, -1]].tolist() == [0, latents]


def test_more_scores_than_are_looked_through_are_told_from_as_many_as_that() -> None:
    scores = torch.arange(24.0).view(4, 6)
    for above, told in ((0, 0), (1, 1), (6, 6), (7, 7), (20, 7)):
        found = scored_above(scores, torch.tensor(23.0 - above), 3).above
        assert most_above(3) == 6
        assert found is not None and int(found.number) == told


@pytest.mark.parametrize("extra", [0, 1, 5, 12])
def test_a_bound_leaves_exactly_the_largest_of_which_ties_go_to_the_lower_place(extra: int) -> None:
    """Scores are few whole numbers, so that the last place is tied; `extra` more than wanted exceed the bound."""
    scores = torch.randint(1, 8, (6, 10), generator=torch.Generator().manual_seed(extra)).float()
    count = int((scores >= 5).sum()) - extra
    assert most_above(count) >= count + extra
    scored = scored_above(scores, torch.tensor(4.0), count)
    assert scored.above is not None and int(scored.above.number) == count + extra
    found = of_bounded(scored, count)
    expected = torch.sort(scores.flatten(), descending=True, stable=True).indices[:count].sort().values
    assert (found.row_N * 10 + found.latent_N).tolist() == expected.tolist()
    assert found.value_N.tolist() == scores.flatten()[expected].tolist()
    assert of_batch(scores, count, 0.0).value_N.sort().values.tolist() == found.value_N.sort().values.tolist()


def test_only_the_encoders_product_is_reduced_in_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead latents' product, of the same function, is not; nor is what comes after an error."""
    matmul, found, product = torch.backends.cuda.matmul, list[object](), static_encode.scores_of
    before = matmul.fp32_precision
    for module in (static_encode, revival):
        monkeypatch.setattr(
            module, "scores_of", lambda *given: (found.append(matmul.fp32_precision), product(*given))[1]
        )
    config = SaeConfig(k=K, auxiliary_k=5, auxiliary="reencoded_error")
    take(config, build_weights(0, unit=True), 1.0, torch.randn(TOKENS, WIDTH), torch.arange(LATENTS) < 3, "batch")
    assert found == ["tf32", before]
    with pytest.raises(ZeroDivisionError), on_tensor_cores():
        _ = 1 / 0
    assert matmul.fp32_precision == before != "tf32"
    with on_tensor_cores():
        with on_tensor_cores():
            pass
        assert matmul.fp32_precision == "tf32"
