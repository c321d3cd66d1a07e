"""A trained sparse autoencoder on disk: SAELens's JumpReLU files, opened without SAELens, and a table of its latents.

Shapes: B tokens, D components (columns of the shards), F latents, N active (token, latent) pairs.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from assets.sae.latents import SparseLatents
from resources.artifact import Artifact
from resources.columns import described
from resources.errors import BadInput

if TYPE_CHECKING:
    import torch

WEIGHTS_FILE = "sae_weights.safetensors"
CONFIG_FILE = "cfg.json"
LATENTS_FILE = "latents.parquet"
COMPONENTS_FILE = "components.parquet"

LATENTS = pa.schema(
    [
        described("latent", pa.int32(), "index, 0-based"),
        described("density", pa.float64(), "share of held-out tokens on which it fires"),
        described("mean", pa.float32(), "mean activation where it fires, held out; 0 when it never does"),
        described("max", pa.float32(), "largest activation, held out; 0 when it never fires"),
        described("threshold", pa.float32(), "activation above which it fires"),
        described("decoder_norm", pa.float32(), "norm of its decoder row, raw units"),
        described("max_cosine", pa.float32(), "largest cosine with another decoder row"),
        described("component", pa.string(), "component of its largest decoder weight, raw units"),
        described("dead", pa.bool_(), "fired on no training token of the last window"),
    ]
)
COMPONENTS = pa.schema(
    [
        described("component", pa.string(), "column of the shards"),
        described(
            "explained_variance",
            pa.float64(),
            "share of its variance that the SAE explains, held out; NaN for one that never moves",
        ),
    ]
)
SCHEMAS = {"batchtopk_sae": {LATENTS_FILE: LATENTS, COMPONENTS_FILE: COMPONENTS}}
"""Asset -> file -> its columns."""


@dataclass(frozen=True, repr=False)
class Sae(Artifact):
    """An SAE for inference on the raw adapter state. What a token encodes to never depends on its batch."""

    columns: tuple[str, ...]
    """Component ids, in the order of the shards' columns."""
    k: int
    threshold: float
    """The learned threshold on scores; `threshold_F` is what it means for each latent's activation."""
    W_enc_DF: "torch.Tensor"
    b_enc_F: "torch.Tensor"
    W_dec_FD: "torch.Tensor"
    b_dec_D: "torch.Tensor"
    threshold_F: "torch.Tensor"

    @classmethod
    def open(cls, path: Path, device: str = "cpu") -> Self:
        """Read the folder of a `batchtopk_sae`.

        Raises:
            BadInput: when the folder holds no SAE of this project.
        """
        from safetensors.torch import load_file

        if not (path / CONFIG_FILE).is_file():
            raise BadInput(f"{path} holds no {CONFIG_FILE}: it is no batchtopk_sae")
        about = json.loads((path / CONFIG_FILE).read_text())["metadata"]
        if "columns" not in about:
            raise BadInput(f"{path / CONFIG_FILE} names no columns: it was not trained by this project")
        weights = load_file(path / WEIGHTS_FILE, device=device)
        return cls(
            path=path,
            columns=tuple(about["columns"]),
            k=about["k"],
            threshold=about["threshold"],
            W_enc_DF=weights["W_enc"],
            b_enc_F=weights["b_enc"],
            W_dec_FD=weights["W_dec"],
            b_dec_D=weights["b_dec"],
            threshold_F=weights["threshold"],
        )

    @property
    def d_in(self) -> int:
        """Components it reads and writes."""
        return self.W_enc_DF.shape[0]

    @property
    def d_sae(self) -> int:
        """Latents."""
        return self.W_enc_DF.shape[1]

    def encode(self, state_BD: "torch.Tensor") -> SparseLatents:
        """Latents above their thresholds, for float32 states [B, D] in the order of `columns`.

        Raises:
            BadInput: when the states have another width, or are not finite.
        """
        import torch

        from assets.sae.encode import encode_densely, encode_filtered
        from assets.sae.scores import filter_is_faster

        if state_BD.ndim != 2 or state_BD.shape[1] != self.d_in:
            raise BadInput(f"the SAE reads {self.d_in} components, the states are {tuple(state_BD.shape)}")
        # The sum is not finite when any state is not, and costs a quarter of looking at each; it may also overflow.
        if not bool(torch.isfinite(state_BD.sum())) and not bool(torch.isfinite(state_BD).all()):
            raise BadInput("the states hold NaN or infinity: capture them again, in bfloat16 or float32")
        rule_out = len(state_BD) > 0 and filter_is_faster(state_BD.device.type)
        found = encode_filtered if rule_out else encode_densely
        return found(state_BD.float(), self.W_enc_FD, self.b_enc_F, self.threshold_F)

    @cached_property
    def W_enc_FD(self) -> "torch.Tensor":
        """The encoder with a latent's weights in a row."""
        return self.W_enc_DF.T.contiguous()

    def decode(self, latents: SparseLatents, rows: int) -> "torch.Tensor":
        """The reconstructed states [rows, D], float32; tokens without an active latent get the bias."""
        from assets.sae.sparse_rows import bags, sum_rows

        row_N, latent_N, value_N = latents
        return sum_rows(latent_N, value_N, bags(row_N, rows), self.W_dec_FD) + self.b_dec_D

    def table(self) -> pa.Table:
        """One row per latent, see `LATENTS`."""
        return pq.read_table(self.path / LATENTS_FILE, schema=LATENTS)


def write_sae(folder: Path, sae: Sae, about: dict[str, object]) -> None:
    """Write SAELens's two files; `about` joins the metadata of `cfg.json` (dataset, model, recipe).

    Source: SAELens 6.54, `SAEConfig` and `JumpReLUSAEConfig`; a latent fires where its pre-activation > threshold.
    """
    from safetensors.torch import save_file

    weights = {
        "W_enc": sae.W_enc_DF,
        "b_enc": sae.b_enc_F,
        "W_dec": sae.W_dec_FD,
        "b_dec": sae.b_dec_D,
        "threshold": sae.threshold_F,
    }
    save_file({name: weight.contiguous().cpu() for name, weight in weights.items()}, folder / WEIGHTS_FILE)
    config = {
        "architecture": "jumprelu",
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {**about, "k": sae.k, "threshold": sae.threshold, "columns": list(sae.columns)},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1))
