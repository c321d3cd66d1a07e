"""Sums of whole rows for pairs of which one latent has thousands and most have few, on a GPU.

A GPU adds up a bag in one serial loop, 0.1 to 0.2 us for every pair, and all wait for the longest. Cut into pieces of
at most `PIECE` pairs, bags are summed side by side, and then the pieces of each. Every shape is known before the
numbers are. Shapes: B tokens, D components, F latents, N pairs, P pieces.
"""

from typing import NamedTuple

import torch

from assets.sae.static_selection import integers_to

PIECE = 32
"""A latent that fires on 4096 tokens has 128 pieces: neither loop is long."""


class Counting(NamedTuple):
    """Whole numbers that every step of one size uses: a kernel each, were they made anew."""

    row_B: torch.Tensor
    """int32: 0 to B."""
    one_B: torch.Tensor
    """float32: 1 for every token; a product with it sums rows in a third of the time."""
    latent_F: torch.Tensor
    """0 to F - 1, of the type that latents are sorted in."""
    block_N: torch.Tensor
    """int32: in which `PIECE` pairs of the sorted ones each lies."""
    piece_P: torch.Tensor
    """int32: 0 to P - 1."""

    @classmethod
    def of(cls, rows: int, latents: int, pairs: int, device: torch.device) -> "Counting":
        """For batches of `rows` tokens that select `pairs`."""
        pieces = latents + -(-pairs // PIECE)
        return cls(
            torch.arange(rows + 1, dtype=torch.int32, device=device),
            torch.ones(rows, device=device),
            torch.arange(latents, dtype=integers_to(latents), device=device),
            torch.arange(pairs, dtype=torch.int32, device=device) // PIECE,
            torch.arange(pieces, dtype=torch.int32, device=device),
        )


class Pieces(NamedTuple):
    """Where sorted pairs are cut: at every new latent, and after every `PIECE` pairs."""

    begin_P: torch.Tensor
    """The first pair of each piece; a piece may be empty."""
    begin_F: torch.Tensor
    """The first piece of each latent."""


def cut(latent_N: torch.Tensor, counting: Counting) -> Pieces:
    """Of sorted latents.

    A latent and a block of `PIECE` pairs have one piece in common at most, and both only grow: their sum numbers it.
    """
    begin_P = torch.searchsorted(latent_N + counting.block_N, counting.piece_P, out_int32=True)
    pair_F = torch.searchsorted(latent_N, counting.latent_F, out_int32=True)
    return Pieces(begin_P, pair_F // PIECE + counting.latent_F)


def sum_pieces(
    index_N: torch.Tensor, weight_N: torch.Tensor, pieces: Pieces, counting: Counting, rows: torch.Tensor
) -> torch.Tensor:
    """For every latent the sum of rows[index] x weight over its pairs, always in the same order."""
    bag = torch.nn.functional.embedding_bag
    of_piece = bag(index_N, rows, pieces.begin_P, mode="sum", per_sample_weights=weight_N)
    return bag(counting.piece_P, of_piece, pieces.begin_F, mode="sum")
