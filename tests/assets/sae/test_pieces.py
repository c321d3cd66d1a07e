"""Sums over bags that are cut into pieces."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from assets.sae.pieces import PIECE, Counting, cut, sum_pieces

HERE = torch.device("cpu")


def sorted_latents(counts: list[int]) -> torch.Tensor:
    """As many pairs of each latent."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(torch.int16)


def plain_sum(
    latents: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, table: torch.Tensor, owners: int
) -> torch.Tensor:
    terms = table.double()[rows.long()] * weights.double()[:, None]
    return torch.zeros(owners, table.shape[1], dtype=torch.float64).index_add_(0, latents.long(), terms)


def test_bags_are_cut_at_every_latent_and_after_every_so_many_pairs() -> None:
    """By hand: latents of 3, 0, `PIECE` and 1 pairs; the third's are in two blocks, and the last begins inside one."""
    latents = sorted_latents([3, 0, PIECE, 1])
    found = cut(latents, Counting.of(1, 4, len(latents), HERE))
    assert found.begin_F.tolist() == [0, 1, 2, 4]
    assert found.begin_P.tolist() == [0, 3, 3, PIECE, PIECE + 3, PIECE + 4]


def test_a_latent_that_begins_with_a_block_has_no_piece_before_it() -> None:
    latents = sorted_latents([PIECE, 2 * PIECE])
    found = cut(latents, Counting.of(1, 2, len(latents), HERE))
    assert found.begin_F.tolist() == [0, 2]
    assert found.begin_P.tolist() == [0, PIECE, PIECE, 2 * PIECE, 3 * PIECE]


@pytest.mark.parametrize("counts", [[0, 5 * PIECE + 3, 0], [2 * PIECE, 0, 1], [0, 0, 1], [1] * 100])
def test_no_piece_is_longer_than_a_piece_or_belongs_to_two_latents(counts: list[int]) -> None:
    latents = sorted_latents(counts)
    found = cut(latents, Counting.of(1, len(counts), len(latents), HERE))
    ends = [*found.begin_P.tolist()[1:], len(latents)]
    parts = [latents[begin:end].tolist() for begin, end in zip(found.begin_P.tolist(), ends, strict=True)]
    assert max(map(len, parts)) <= PIECE
    assert all(len(set(part)) <= 1 for part in parts)


@given(some.lists(some.sampled_from([0, 1, 2, 7, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE]), min_size=1).filter(any))
def test_a_sum_over_pieces_is_the_sum_over_pairs(counts: list[int]) -> None:
    latents = sorted_latents(counts)
    generator = torch.Generator().manual_seed(len(latents))
    table = torch.randn(6, 3, generator=generator)
    rows = torch.randint(0, 6, (len(latents),), generator=generator, dtype=torch.int32)
    weights = torch.randn(len(latents), generator=generator)
    counting = Counting.of(6, len(counts), len(latents), HERE)
    found = sum_pieces(rows, weights, cut(latents, counting), counting, table)
    expected = plain_sum(latents, rows, weights, table, len(counts))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
