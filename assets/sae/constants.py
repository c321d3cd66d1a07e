"""What every step of one size uses: a kernel each, were it made anew. Shapes: B tokens, F latents."""

from typing import NamedTuple

import torch

from assets.sae.static_selection import integers_to


class Constants(NamedTuple):
    """Numbers that do not change from step to step."""

    row_B: torch.Tensor
    """int32: 0 to B."""
    latent_F: torch.Tensor
    """0 to F, of the type that latents are sorted in."""
    one_B: torch.Tensor
    """float32: 1 for every token; a product with it sums rows in a third of the time."""

    @classmethod
    def of(cls, rows: int, latents: int, device: torch.device) -> "Constants":
        """For batches of `rows` tokens."""
        return cls(
            torch.arange(rows + 1, dtype=torch.int32, device=device),
            torch.arange(latents + 1, dtype=integers_to(latents + 1), device=device),
            torch.ones(rows, device=device),
        )
