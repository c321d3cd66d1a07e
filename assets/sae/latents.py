"""What an SAE says of tokens: which latents fire, and how much.

Shapes: N active (token, latent) pairs.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class SparseLatents(NamedTuple):
    """Active latents of a batch as triples, sorted by row, then latent."""

    row_N: "torch.Tensor"
    """int64: token within the batch."""
    latent_N: "torch.Tensor"
    """int64: latent index."""
    value_N: "torch.Tensor"
    """float32: activation, above the latent's threshold."""
