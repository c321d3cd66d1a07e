"""Sums and dot products by owner as sparse products, against plain ones."""

import torch
from hypothesis import given
from hypothesis import strategies as some

from assets.sae.sparse_rows import dots_by_owner, sum_by_owner


def begins(counts: list[int]) -> torch.Tensor:
    """Of owners with so many pairs each, and the end."""
    return torch.tensor([0, *counts]).cumsum(0).int()


@given(some.lists(some.sampled_from([0, 1, 2, 7, 200]), min_size=1).filter(any))
def test_sums_and_dot_products_are_those_of_the_pairs_however_unevenly_they_lie(counts: list[int]) -> None:
    """No pair comes twice, as none does in a step; an owner's come in any order."""
    pairs, generator = sum(counts), torch.Generator().manual_seed(len(counts))
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    other = torch.cat([torch.randperm(200, generator=generator)[:count] for count in counts]).int()
    weight = torch.randn(pairs, generator=generator)
    left, right = torch.randn(len(counts), 3, generator=generator), torch.randn(200, 3, generator=generator)
    terms = right.double()[other.long()] * weight.double()[:, None]
    expected = torch.zeros(len(counts), 3, dtype=torch.float64).index_add_(0, owner, terms)
    found = sum_by_owner(begins(counts), other, weight, right)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    dots = dots_by_owner(begins(counts), other, left, right)
    torch.testing.assert_close(dots, (left[owner] * right[other.long()]).sum(dim=1), rtol=1e-5, atol=1e-5)


def test_owners_without_pairs_have_sums_of_zero() -> None:
    """By hand: the first and the last own nothing, the second has both pairs."""
    found = sum_by_owner(begins([0, 2, 0]), torch.tensor([0, 1]).int(), torch.tensor([2.0, 3.0]), torch.eye(2))
    assert found.tolist() == [[0, 0], [2, 3], [0, 0]]
