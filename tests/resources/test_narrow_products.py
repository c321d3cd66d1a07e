"""Products from bfloat16 parts are those of the float32 adapter, on tensors that claim to be on a GPU."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resources.narrow_products import NarrowProducts, split
from tests.claimed_gpu import claimed_gpu

TOKENS, WIDE = (3, 17), 200
NORMAL = st.floats(2.0**-100, 2.0**127, width=32) | st.floats(-(2.0**127), -(2.0**-100), width=32)


@given(st.lists(NORMAL | st.just(0.0), min_size=1))
def test_three_bfloat16_numbers_sum_to_a_float32_number_and_two_to_16_bits(values: list[float]) -> None:
    x = torch.tensor(values)
    parts = split(x, 3)
    assert {part.dtype for part in parts} == {torch.bfloat16}
    assert torch.equal(torch.stack(parts).double().sum(0), x.double())
    assert bool(((x.double() - parts[0] - parts[1]).abs() <= 2.0**-16 * x.double().abs()).all())


def drawn(rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, A, B and out."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*TOKENS, WIDE, generator=generator).bfloat16()
    A_RI, B_RO = torch.randn(2, rank, WIDE, generator=generator)
    return x, A_RI, B_RO, torch.randn(*TOKENS, WIDE, generator=generator).bfloat16()


@pytest.mark.parametrize("rank", [1, 3])
@given(seed=st.integers(0, 1000))
def test_a_read_is_the_product_in_float64(rank: int, seed: int) -> None:
    x, A_RI, B_RO, _ = drawn(rank, seed)
    with claimed_gpu():
        found = NarrowProducts(A_RI.to("cuda"), B_RO.to("cuda")).read(x.to("cuda"))
        assert found.is_cuda
        found = found.cpu()
    assert found.dtype == torch.float32
    wanted = x.double() @ A_RI.T.double()
    assert found.shape == wanted.shape
    terms = x.double().abs() @ A_RI.T.double().abs()
    assert bool(((found - wanted).abs() <= 1e-6 * terms).all())


@pytest.mark.parametrize("rank", [1, 3])
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_an_update_is_added_as_in_float64_and_rounded_once(rank: int, seed: int, scale: float) -> None:
    x, A_RI, B_RO, out = drawn(rank, seed)
    state = scale * (x.float() @ A_RI.T)
    with claimed_gpu():
        there = out.to("cuda", copy=True)
        NarrowProducts(A_RI.to("cuda"), B_RO.to("cuda")).add_update_(there, state.to("cuda"))
        found = there.cpu().double()
    exact = out.double() + state.double() @ B_RO.double()
    # half of the last of 8 bits; and 2^-16 of the terms, which is more than that where they cancel
    allowed = torch.finfo(torch.bfloat16).eps / 2 * exact.abs() + 2.0**-16 * (
        state.double().abs() @ B_RO.double().abs()
    )
    assert bool(((found - exact).abs() <= allowed).all())
