"""Both ways of encoding find the latents that float64 finds, whatever tokens, biases and thresholds are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.sae.artifact import Sae
from assets.sae.encode import CPU_ROWS_AT_ONCE, encode_densely, encode_filtered
from assets.sae.latents import SparseLatents
from assets.sae.sparse_rows import dots

COMPONENTS, LATENTS = 24, 70
Encode = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], SparseLatents]
ENCODERS: list[Encode] = [encode_densely, encode_filtered]


def build(seed: int, tail: float) -> tuple[torch.Tensor, ...]:
    """States, encoder, bias and thresholds; `tail` makes some tokens much larger than others, as first tokens are."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    tokens = CPU_ROWS_AT_ONCE + 30  # more than one block
    states_BD = normal(tokens, COMPONENTS) * torch.exp(tail * normal(tokens, 1))
    threshold_F = 4 + normal(LATENTS)
    threshold_F[3] = torch.inf  # a decoder row of 0
    return states_BD, normal(LATENTS, COMPONENTS), normal(LATENTS), threshold_F


def flat(found: SparseLatents) -> torch.Tensor:
    """One number per (token, latent)."""
    return found[0] * LATENTS + found[1]


@pytest.mark.parametrize("encode", ENCODERS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), tail=st.sampled_from([0.0, 1.0, 3.0]))
def test_every_latent_above_its_threshold_is_found_once_with_its_value(encode: Encode, seed: int, tail: float) -> None:
    states_BD, encoder_FD, bias_F, threshold_F = build(seed, tail)
    exact_BF = states_BD.double() @ encoder_FD.double().T + bias_F.double()
    off_BF = exact_BF - threshold_F.double()
    found = encode(states_BD, encoder_FD, bias_F, threshold_F)
    # float32 may decide either way what is this near
    doubtful = (off_BF.abs() < 1e-5 * (1 + states_BD.norm(dim=1))[:, None]).flatten()
    fires = torch.zeros(len(doubtful), dtype=torch.bool)
    fires[flat(found)] = True
    assert torch.equal(fires[~doubtful], (off_BF > 0).flatten()[~doubtful])
    assert bool((flat(found).diff() > 0).all())
    wrong_N = (found[2] - exact_BF.flatten()[flat(found)]).abs()
    assert bool((wrong_N <= 1e-5 * (1 + states_BD.norm(dim=1)[found[0]])).all())


def test_a_filtered_value_is_the_same_bits_alone_and_in_any_batch() -> None:
    states_BD, encoder_FD, bias_F, threshold_F = build(7, 1.0)
    row_N, latent_N, value_N = encode_filtered(states_BD, encoder_FD, bias_F, threshold_F)
    for token in (0, 17, len(states_BD) - 1):
        _, alone_N, alone_value_N = encode_filtered(states_BD[token : token + 1], encoder_FD, bias_F, threshold_F)
        assert torch.equal(alone_N, latent_N[row_N == token])
        assert torch.equal(alone_value_N, value_N[row_N == token])


def test_a_latent_fires_above_its_threshold_and_not_on_it() -> None:
    states_BD, encoder_FD, bias_F, threshold_F = build(1, 0.0)
    one = torch.tensor([5])
    on_it = dots(one * 0, one, states_BD, encoder_FD) + bias_F[5]
    for encode in ENCODERS:
        limit_F = threshold_F.clone()
        limit_F[5] = on_it
        if encode is encode_filtered:  # the dense product's last bit may be another
            assert 5 not in encode(states_BD[:1], encoder_FD, bias_F, limit_F)[1]
        limit_F[5] = on_it - 1e-4
        assert 5 in encode(states_BD[:1], encoder_FD, bias_F, limit_F)[1]


@pytest.mark.parametrize("encode", ENCODERS)
def test_where_nothing_fires_the_triples_are_empty(encode: Encode) -> None:
    states_BD, encoder_FD, bias_F, threshold_F = build(2, 0.0)
    found = encode(states_BD, encoder_FD, bias_F, torch.full_like(threshold_F, torch.inf))
    assert [len(part) for part in found] == [0, 0, 0]


@pytest.mark.parametrize("bias", [100.0, 5000.0])
def test_a_bias_far_above_its_threshold_is_not_lost_beside_a_latent_that_nothing_reaches(bias: float) -> None:
    states_BD, encoder_FD, bias_F, threshold_F = build(1, 0.0)
    bias_F[5] = bias
    assert threshold_F[3] == torch.inf
    found = encode_filtered(states_BD, encoder_FD, bias_F, threshold_F)
    assert int((found[1] == 5).sum()) == len(states_BD)
    assert torch.equal(flat(found), flat(encode_densely(states_BD, encoder_FD, bias_F, threshold_F)))


def test_no_token_encodes_to_nothing() -> None:
    _, encoder_FD, bias_F, threshold_F = build(3, 0.0)
    zero_D = torch.zeros(COMPONENTS)
    sae = Sae(Path(), ("a",) * COMPONENTS, 4, 1.0, encoder_FD.T, bias_F, encoder_FD, zero_D, threshold_F)
    assert [len(part) for part in sae.encode(torch.zeros(0, COMPONENTS))] == [0, 0, 0]
