"""The trained dictionary in the forms others load: this project's `Sae` (SAELens's files) and dictionary_learning.

Shapes: D columns of the shards, F latents; E columns that entered training.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from assets.sae.artifact import Sae
from assets.sae.batchtopk import Folded

DICTIONARY_LEARNING_FILE = "dictionary_learning.safetensors"


def to_sae(
    folded: Folded, columns: tuple[str, ...], entering: torch.Tensor, k: int, threshold: float, folder: Path
) -> Sae:
    """The SAE over all shard columns; those that did not enter neither reach a latent nor are written.

    A latent fires where latent x norm > threshold, so its own threshold is threshold / norm.
    """
    width = len(columns)
    return Sae(
        path=folder,
        columns=columns,
        k=k,
        threshold=threshold,
        W_enc_DF=_spread(folded.W_enc_DF, entering, width, 0),
        b_enc_F=folded.b_enc_F,
        W_dec_FD=_spread(folded.W_dec_FD, entering, width, 1),
        b_dec_D=_spread(folded.b_dec_D, entering, width, 0),
        threshold_F=threshold / folded.norm_F.clamp(min=torch.finfo(torch.float32).tiny),
    )


def _spread(tensor: torch.Tensor, entering: torch.Tensor, width: int, axis: int) -> torch.Tensor:
    shape = list(tensor.shape)
    shape[axis] = width
    return tensor.new_zeros(shape).index_copy_(axis, entering.to(tensor.device), tensor)


def write_dictionary_learning(folder: Path, sae: Sae) -> None:
    """The state dict of dictionary_learning's `BatchTopKSAE`, as safetensors.

    It subtracts the decoder bias before encoding and has one threshold for all latents, so latents are written in units
    of their own threshold times the common one. Load with
    `BatchTopKSAE(d_in, d_sae, k).load_state_dict(safetensors.torch.load_file(path))`.
    """
    unit_F = sae.threshold_F / sae.threshold if sae.threshold > 0 else torch.ones_like(sae.threshold_F)
    W_enc_FD = sae.W_enc_DF.T.double() / unit_F[:, None]
    state = {
        "encoder.weight": W_enc_FD,
        "encoder.bias": sae.b_enc_F / unit_F + W_enc_FD @ sae.b_dec_D.double(),
        "decoder.weight": (sae.W_dec_FD * unit_F[:, None]).T,
        "b_dec": sae.b_dec_D,
        "threshold": torch.tensor(sae.threshold),
    }
    tensors = {name: tensor.float().contiguous().cpu() for name, tensor in state.items()}
    save_file(tensors | {"k": torch.tensor(sae.k, dtype=torch.int32)}, folder / DICTIONARY_LEARNING_FILE)
