"""Places in a [B, F] matrix as flat indices: which entries of a mask are true, and where an index lies.

On a CPU by numpy, two to five times faster than torch. Shapes: B tokens, F latents, N entries.
"""

import numpy as np
import torch


def true_entries(mask: torch.Tensor) -> torch.Tensor:
    """Flat indices of the true entries, ascending."""
    if mask.is_cuda:
        return mask.flatten().nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def places(flat_N: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and latent of flat indices into a [B, width] matrix."""
    row_N = flat_N // width if flat_N.is_cuda else torch.from_numpy(flat_N.numpy() // width)
    return row_N, flat_N - row_N * width
