"""How a dictionary's weights start, and how fast they move."""

import pytest
import torch

from assets.sae.batchtopk import fitting_bias, geometric_median, learning_rate, start_weights
from assets.sae.config import SaeConfig
from assets.sae.threshold import moving_threshold

DIAGONAL = 0.5**0.5
DECODER = torch.tensor([[1.0, 0.0], [0.0, 1.0], [DIAGONAL, DIAGONAL]])
ORIGIN = torch.zeros(2)
TWO = SaeConfig(k=2, encoder_start=1.0)
TOKEN = torch.tensor([[2.0, 1.0]])
"""Scores 2, 1 and 3/sqrt(2) = 2.12: the first and the last fire, (2, 0) + (1.5, 1.5) = (3.5, 1.5)."""
ROWS = (1 + DIAGONAL, DIAGONAL)
"""The sum of their decoder rows; its square is 2 + sqrt(2)."""


def test_the_first_bias_is_what_makes_overlapping_latents_fit_a_token_best() -> None:
    """The sum overshoots by (1.5, 0.5)."""
    bias = -(1.5 * ROWS[0] + 0.5 * ROWS[1]) / (2 + 2**0.5)
    assert fitting_bias(TWO, DECODER, TOKEN, ORIGIN) == pytest.approx(bias)


def test_a_bias_is_fitted_to_scores_as_large_as_the_encoder_makes_them() -> None:
    """Norm 2: (7, 3) overshoots by (5, 2)."""
    double = SaeConfig(k=2, encoder_start=2.0)
    bias = -(5 * ROWS[0] + 2 * ROWS[1]) / (2 + 2**0.5)
    assert fitting_bias(double, DECODER, TOKEN, ORIGIN) == pytest.approx(bias)


def test_a_latent_alone_that_undershoots_gets_a_bias_above_zero() -> None:
    """(3, 3) scores half of its length, 3 x sqrt(2) / 2, and needs the other half."""
    one = SaeConfig(k=1, encoder_start=0.5)
    assert fitting_bias(one, DECODER, torch.tensor([[3.0, 3.0]]), ORIGIN) == pytest.approx(3 * 2**0.5 / 2)


def test_the_latents_of_a_batch_are_chosen_together_when_the_bias_is_fitted() -> None:
    """Four of two tokens' six: (10, 0) takes 10 and 7.07, (0, 1) takes 1 and 0.71.

    Sums (15, 5) and (0.5, 1.5) overshoot by (5, 5) and (0.5, 0.5); rows (1 + d, d) and (d, 1 + d).
    """
    bias = -(5 * (1 + 2 * DIAGONAL) + 0.5 * (1 + 2 * DIAGONAL)) / (2 * (2 + 2**0.5))
    tokens = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    assert fitting_bias(TWO, DECODER, tokens, ORIGIN) == pytest.approx(bias)


def test_an_encoder_that_reads_uncentred_states_is_fitted_to_what_it_reads() -> None:
    """Uncentred (2, 1) scores as above and must rebuild (1, 1): it overshoots by (2.5, 0.5)."""
    uncentred = SaeConfig(k=2, encoder_start=1.0, center=False)
    bias = -(2.5 * ROWS[0] + 0.5 * ROWS[1]) / (2 + 2**0.5)
    assert fitting_bias(uncentred, DECODER, TOKEN, torch.tensor([1.0, 0.0])) == pytest.approx(bias)


def test_states_that_never_move_leave_the_bias_at_zero() -> None:
    assert fitting_bias(TWO, DECODER, torch.zeros(4, 2), ORIGIN) == 0.0


def test_the_encoder_starts_as_a_copy_of_the_decoder_with_one_bias_for_all() -> None:
    sample = torch.randn(6000, 5, generator=torch.Generator().manual_seed(0))
    fitted = start_weights(SaeConfig(k=3, encoder_start=0.25), sample, 20)
    assert torch.equal(fitted.W_enc_FD, 0.25 * fitted.W_dec_FD)
    assert torch.equal(fitted.b_enc_F, fitted.b_enc_F[:1].expand(20))
    assert float(fitted.b_enc_F[0]) != 0
    authors = start_weights(SaeConfig(k=3, preset="authors"), sample, 20)
    assert torch.equal(authors.W_enc_FD, authors.W_dec_FD)
    assert torch.equal(authors.b_enc_F, torch.zeros(20))


def test_the_geometric_median_of_a_right_angled_triangle_is_its_fermat_point() -> None:
    """At (t, t) the sum 2 sqrt((1 - t)^2 + t^2) + sqrt(2) t is least where 6 t^2 - 6 t + 1 = 0; shifted by (3, 1)."""
    triangle = torch.tensor([[3.0, 1.0], [4.0, 1.0], [3.0, 2.0]])
    t = (3 - 3**0.5) / 6
    assert geometric_median(triangle).tolist() == pytest.approx([3 + t, 1 + t], abs=1e-4)


def test_the_rate_rises_over_the_warmup_stays_and_falls_over_the_last_share_of_the_steps() -> None:
    config = SaeConfig(learning_rate=1.0, warmup_steps=3, decay_fraction=0.5)
    assert [learning_rate(config, step, 8) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    flat = SaeConfig(learning_rate=0.5, warmup_steps=0, decay_fraction=0.0)
    assert [learning_rate(flat, step, 8) for step in (0, 7)] == [0.5, 0.5]


def test_the_learned_threshold_moves_by_a_hundredth_towards_each_batchs() -> None:
    assert moving_threshold(None, 2.0) == 2.0
    assert moving_threshold(1.0, 2.0) == pytest.approx(1.01)
