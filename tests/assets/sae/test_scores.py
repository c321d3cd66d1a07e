"""Filtered scores against exact ones: the filter may save work, never an entry."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.sae.candidates import candidates
from assets.sae.scores import BlockScores, FilteredScores
from assets.sae.selection import Threshold, select_batch
from assets.sae.sparse_rows import SHARE, dots, sum_all_rows
from resources.sources import PROJECT

TOKENS, WIDTH, LATENTS = 40, 30, 70


def build(seed: int, tail: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input, encoder and bias; `tail` makes some tokens much larger than others, as first tokens of a text are."""
    generator = torch.Generator().manual_seed(seed)
    x_BD = torch.randn(TOKENS, WIDTH, generator=generator)
    x_BD *= torch.randn(TOKENS, 1, generator=generator).mul(tail).exp()
    return x_BD, torch.randn(LATENTS, WIDTH, generator=generator), torch.randn(LATENTS, generator=generator)


def filtered(x_BD: torch.Tensor, encoder_FD: torch.Tensor, bias_F: torch.Tensor) -> FilteredScores:
    """With room for 16 of the 40 tokens at once."""
    return FilteredScores(x_BD, encoder_FD, bias_F, torch.empty(16, LATENTS, dtype=torch.int32))


def every_score(x_BD: torch.Tensor, encoder_FD: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
    row_N = torch.arange(TOKENS).repeat_interleave(LATENTS)
    latent_N = torch.arange(LATENTS).repeat(TOKENS)
    return dots(row_N, latent_N, x_BD, encoder_FD) + bias_F[latent_N]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), tail=st.sampled_from([0.0, 1.0, 3.0]), share=st.floats(0.001, 0.999))
def test_no_score_above_a_bound_is_missed_or_invented(seed: int, tail: float, share: float) -> None:
    x_BD, encoder_FD, bias_F = build(seed, tail)
    exact_N = every_score(x_BD, encoder_FD, bias_F)
    bound = float(exact_N.quantile(share))
    found = filtered(x_BD, encoder_FD, bias_F).above(bound)
    expected_N = (exact_N > bound).nonzero().flatten()
    assert torch.equal(found.flat_N, expected_N)
    assert torch.equal(found.score_N, exact_N[expected_N])


def test_products_that_oneDNN_saturates_filter_nothing() -> None:
    # AVX2 without VNNI, as on most laptops: told to oneDNN, whatever this CPU is
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    asked = "from assets.sae.scores import filter_is_faster; print(filter_is_faster('cpu'))"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


def test_candidates_do_not_depend_on_how_many_rows_are_rounded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x_BD, encoder_FD, bias_F = build(3, 1.0)
    room_BF = torch.empty(TOKENS, LATENTS, dtype=torch.int32)
    at_once = candidates(x_BD, encoder_FD, bias_F, 2.0, room_BF)
    monkeypatch.setattr("assets.sae.candidates.BLOCK", 16)
    assert torch.equal(candidates(x_BD, encoder_FD, bias_F, 2.0, room_BF), at_once)


@pytest.mark.parametrize("rows", [1, SHARE, SHARE + 1, 3 * SHARE - 1])
def test_the_sum_of_all_rows_is_the_product_with_their_weights(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight_N, rows_ND = torch.randn(rows, generator=generator), torch.randn(rows, WIDTH, generator=generator)
    exact_D = (weight_N.double() @ rows_ND.double()).float()
    torch.testing.assert_close(sum_all_rows(weight_N, rows_ND), exact_D, rtol=1e-5, atol=1e-4)


def test_exact_scores_are_the_dense_product() -> None:
    x_BD, encoder_FD, bias_F = build(1, 1.0)
    dense_BF = x_BD.double() @ encoder_FD.double().T + bias_F.double()
    found = filtered(x_BD, encoder_FD, bias_F).above(2.0)
    torch.testing.assert_close(found.score_N.double(), dense_BF.flatten()[found.flat_N], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("carried", [None, 0.01, 1e6])
def test_the_largest_are_the_same_filtered_or_not(carried: float | None) -> None:
    x_BD, encoder_FD, bias_F = build(2, 1.0)
    ours = select_batch(filtered(x_BD, encoder_FD, bias_F), 120, 0.0, Threshold(carried))
    every = BlockScores(x_BD, encoder_FD, bias_F)
    assert torch.equal(ours.flat_N, select_batch(every, 120, 0.0, Threshold()).flat_N)


def test_a_sample_is_every_61st_score_and_without_a_bound_all_are_above_it() -> None:
    x_BD, encoder_FD, bias_F = build(2, 1.0)
    exact_N = every_score(x_BD, encoder_FD, bias_F)
    sampled = torch.tensor([61 * i for i in range(46)])  # 40 x 70 scores, so the last is number 2745 of 2799
    for scores in (filtered(x_BD, encoder_FD, bias_F), BlockScores(x_BD, encoder_FD, bias_F)):
        assert torch.equal(scores.sample(), exact_N[sampled])
        found = scores.above(-torch.inf)
        assert torch.equal(found.flat_N, torch.arange(TOKENS * LATENTS))
        torch.testing.assert_close(found.score_N, exact_N)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.001, 0.999), block=st.integers(1, TOKENS + 1))
def test_blocks_of_tokens_hold_the_scores_of_all_tokens(seed: int, share: float, block: int) -> None:
    x_BD, encoder_FD, bias_F = build(seed, 0.0)
    exact_N = (x_BD.double() @ encoder_FD.double().T + bias_F).flatten()
    bound = float(exact_N.quantile(share))
    clear_N = (exact_N - bound).abs() > 1e-4  # nearer, rounding decides
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("assets.sae.scores.CPU_ROWS_AT_ONCE", block)
        found = BlockScores(x_BD, encoder_FD, bias_F).above(bound)
    is_found_N = torch.zeros(TOKENS * LATENTS, dtype=torch.bool)
    is_found_N[found.flat_N] = True
    assert torch.equal(is_found_N[clear_N], (exact_N > bound)[clear_N])
    assert bool((found.score_N > bound).all()) and bool((found.flat_N.diff() > 0).all())
    torch.testing.assert_close(found.score_N.double(), exact_N[found.flat_N], rtol=1e-5, atol=1e-5)


def test_a_filter_looks_closely_at_few_scores() -> None:
    x_BD, encoder_FD, bias_F = build(3, 0.0)
    scores = filtered(x_BD, encoder_FD, bias_F)
    bound = float(every_score(x_BD, encoder_FD, bias_F).quantile(0.99))
    assert len(scores.above(bound).flat_N) == 28
    assert len(candidates(x_BD, encoder_FD, bias_F, bound, scores._product_BF)) < 56


def test_a_latent_of_few_components_does_not_blur_the_filter_for_the_others() -> None:
    x_BD, encoder_FD, bias_F = build(3, 0.0)
    room_BF = torch.empty(TOKENS, LATENTS, dtype=torch.int32)
    bound = float(every_score(x_BD, encoder_FD, bias_F).quantile(0.99))
    before = candidates(x_BD, encoder_FD, bias_F, bound, room_BF) % LATENTS
    encoder_FD[7] = 0
    encoder_FD[7, 5] = 4.0
    after = candidates(x_BD, encoder_FD, bias_F, bound, room_BF) % LATENTS
    assert int((before != 7).sum()) == int((after != 7).sum())


def test_a_bound_that_only_large_tokens_reach_leaves_few_candidates() -> None:
    x_BD, encoder_FD, bias_F = build(5, 2.0)
    room_BF = torch.empty(TOKENS, LATENTS, dtype=torch.int32)
    bound = float(every_score(x_BD, encoder_FD, bias_F).quantile(0.99))
    assert len(candidates(x_BD, encoder_FD, bias_F, bound, room_BF)) < 3 * 28


@pytest.mark.parametrize("rounded", ["tokens", "encoder"])
@pytest.mark.parametrize("width", [2, 127, 448, 700])
def test_no_score_is_missed_where_all_that_rounding_loses_counts(width: int, rounded: str) -> None:
    # all entries but the largest round to 0 from .49 steps, all in the direction of the other vector
    generator = torch.Generator().manual_seed(width)
    signs = torch.randn(TOKENS, width, generator=generator).sign()
    sizes = torch.full((width,), 0.49 / 127)
    sizes[0] = 1.0
    x_BD, encoder_FD = (signs * sizes, signs) if rounded == "tokens" else (signs, signs * sizes)
    scores = FilteredScores(x_BD, encoder_FD, torch.zeros(TOKENS), torch.empty(16, TOKENS, dtype=torch.int32))
    found = set(scores.above(float(sizes.sum()) * (1 - 1e-5)).flat_N.tolist())
    assert found >= {token * TOKENS + token for token in range(TOKENS)}


@pytest.mark.parametrize("largest", [1e-11, 1e-12, 1e-13])
def test_tokens_whose_largest_entry_is_tiny_lose_nothing(largest: float) -> None:
    x_BD, encoder_FD, bias_F = build(4, 0.0)
    shrink = largest / float(x_BD.abs().max())
    x_BD, encoder_FD = x_BD * shrink, encoder_FD / shrink
    exact_N = every_score(x_BD, encoder_FD, bias_F)
    bound = float(exact_N.quantile(0.9))
    assert torch.equal(filtered(x_BD, encoder_FD, bias_F).above(bound).flat_N, (exact_N > bound).nonzero()[:, 0])


@pytest.mark.parametrize("change", ["a token of zeros", "a huge entry", "a latent of zeros", "a huge bias", "all zero"])
@pytest.mark.parametrize("bound", [-1.0, 0.0, 2.0])
def test_no_score_is_missed_where_whole_numbers_cannot_follow(change: str, bound: float) -> None:
    x_BD, encoder_FD, bias_F = build(4, 1.0)
    if change == "a token of zeros":
        x_BD[3] = 0
    elif change == "a huge entry":
        x_BD[3, 5] = 1e6
    elif change == "a latent of zeros":
        encoder_FD[7] = 0
    elif change == "a huge bias":
        bias_F[7] = 1e4
    else:
        x_BD.zero_()
        encoder_FD.zero_()
    exact_N = every_score(x_BD, encoder_FD, bias_F)
    assert torch.equal(filtered(x_BD, encoder_FD, bias_F).above(bound).flat_N, (exact_N > bound).nonzero()[:, 0])
