"""Every knob of the sparse autoencoder, and the stage that trains it."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from resources.components import Component, Named, Projection, in_model_order
from resources.errors import BadInput
from resources.section import Section
from resources.stage import Needs, Stage

Baseline = Literal["topk", "jumprelu", "pca", "random"]

PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    "authors": {
        "activation": "identity",
        "decoder": "free",
        "center": False,
        "bias_start": "zero",
        "encoder_start": 1.0,
        "encoder_bias_start": "zero",
        "auxiliary": "reencoded_error",
        "dead_after_tokens": 1_000_000,
        "decay_fraction": 0.0,
        "input_scale": "none",
    },
}
"""What a preset sets where the experiment does not: `default` is best practice (sources below), `authors` the paper."""


class SaeConfig(Section):
    """The `sae` section. A field that is not written takes the preset's value, else its default."""

    preset: Literal["default", "authors"] = "default"
    """`default`: Gao et al. 2024 and Bussmann et al. 2024; `authors`: the paper's public training script."""
    k: int = Field(default=16, ge=1, le=4096)
    """Latents that fire per token, on average over a batch (paper: 16)."""
    expansion: int = Field(default=8, ge=1, le=256)
    """Latents per component (paper: 8, so 3584 latents for 448 components)."""
    layers: tuple[int, ...] | None = None
    """Layers whose components enter; null: all (paper). Other columns get zero weights, so shapes stay the same."""
    projections: tuple[Projection, ...] | None = None
    """Projections whose components enter, such as gate_proj; null: all seven (paper)."""
    d_in: int | None = Field(default=None, ge=1)
    """Columns the shards must have; null: as many as they have. The paper's adapter has 448."""

    batch_tokens: int = Field(default=512, ge=1, le=1_048_576)
    """Tokens per step (training script: 512)."""
    epochs: float = Field(default=1.0, gt=0, le=1000)
    """Times that every training token is seen (training script: 1); a fraction stops early."""
    learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Adam step size (training script: 5e-4)."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises linearly from 0 (training script: 100)."""
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    """Last share of the steps, over which it falls linearly to 0 (dictionary_learning: 0.2; authors: 0)."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the weights and the token order (training script: 42)."""

    activation: Literal["relu", "identity"] = "relu"
    """What a latent passes through before the selection: relu (BatchTopK paper) or nothing (authors)."""
    decoder: Literal["unit", "free"] = "unit"
    """unit: decoder rows of norm 1, gradient along them removed (Gao et al.); free: scores carry the norm (authors)."""
    center: bool = True
    """Subtract the decoder bias before encoding (Gao et al.; authors: no)."""
    bias_start: Literal["median", "zero"] = "median"
    """Where the decoder bias starts: geometric median of a first sample (Bricken et al. 2023) or 0 (authors)."""
    encoder_start: float = Field(default=0.8, gt=0, le=10)
    """Norm of the encoder's rows at the start, copies of the decoder's unit rows (authors: 1)."""
    encoder_bias_start: Literal["fitted", "zero"] = "fitted"
    """The encoder's biases at the start (authors: zero). Latents that fire together overlap, so that their sum
    overshoots; `fitted` takes from all of them what makes the first reconstructions of a sample fit best, so that
    rows can start longer (bench/RESULTS.md)."""
    input_scale: Literal["none", "scalar", "column"] = "scalar"
    """Divide the input by one number so that mean variance is 1, by each column's deviation, or not (authors).

    Folded into the exported weights, which always take the raw state.
    """
    auxiliary: Literal["residual", "reencoded_error", "none"] = "residual"
    """How dead latents are revived: their activations on the input rebuild the residual (Gao et al., appendix A.2), or
    those on the error itself do (authors)."""
    auxiliary_k: int = Field(default=64, ge=1, le=4096)
    """Dead latents per token in the auxiliary loss at most (Gao et al.: about half of d_in)."""
    auxiliary_coefficient: float = Field(default=1 / 32, ge=0, le=10)
    """Weight of the auxiliary loss (Gao et al. and training script: 1/32)."""
    dead_after_tokens: int = Field(default=100_000, ge=1)
    """A latent that fired on none of that many tokens is dead (training script: 1e6, a tenth of its tokens, after which
    few are still revived; bench/RESULTS.md)."""

    held_out_fraction: float = Field(default=0.05, gt=0, lt=0.9)
    """Share of the rollouts kept out of training, for the threshold's check and the evaluation."""
    held_out_seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of which rollouts those are: SAEs of several seeds are measured on the same ones."""
    calibration_tokens: int = Field(default=131_072, ge=1)
    """Held-out tokens, at most, on which the fixed threshold is set to the exact quantile after training."""
    evaluation_tokens: int = Field(default=1_000_000, ge=1)
    """Held-out tokens, at most, that the evaluation reads."""
    shuffle_tokens: int = Field(default=1_048_576, ge=1)
    """Tokens in the shuffle buffer: bounds memory (2 bytes x columns each). Changes the order, so it enters the key."""
    checkpoint_steps: int = Field(default=2000, ge=1)
    """Steps between two checkpoints in the scratch folder."""
    baselines: tuple[Baseline, ...] = ("topk", "jumprelu", "pca", "random")
    """Other dictionaries trained on the same tokens for comparison."""

    effect_rollouts: int = Field(default=16, ge=0)
    """Held-out rollouts on which the reconstruction is put back into the model; 0: not measured."""
    effect_tokens: int = Field(default=2048, ge=2)
    """First tokens of each of those rollouts (paper's ablation: 2048); of them, those that were captured."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        return {**PRESETS.get(str(values.get("preset", "default")), {}), **values}

    @field_validator("projections", "layers")
    @classmethod
    def _in_order(cls, value: tuple[Named, ...] | None) -> tuple[Named, ...] | None:
        return None if value is None else in_model_order(value)

    def entering(self, components: Sequence[Component]) -> list[int]:
        """Places of the components that `layers` and `projections` let in.

        Raises:
            BadInput: when none does, or a layer is not there.
        """
        beyond = sorted(set(self.layers or ()) - {component.layer for component in components})
        if beyond:
            raise BadInput(f"sae.layers names layer {beyond[0]}, of which the adapter has no component")
        kept = [
            i
            for i, component in enumerate(components)
            if (self.layers is None or component.layer in self.layers)
            and (self.projections is None or component.projection in self.projections)
        ]
        if not kept:
            raise BadInput(f"sae.layers and sae.projections leave none of the adapter's {len(components)} components")
        return kept


SAMPLE_TOKENS = 65_536
"""Tokens on which input scale, variance and the decoder bias's start are measured."""

BATCHTOPK_SAE = Stage(
    asset="batchtopk_sae",
    room="sae",
    code_version=13,
    call="assets.sae.train:train",
    artifact="assets.sae.artifact:Sae",
    sections=("model", "sae"),
    inputs=("activation_shards", "s1k_dataset", "lora_checkpoint"),
    needs=Needs(
        gpus=1, minutes=60, memory_model="assets.sae.estimate:held", time_model="assets.sae.estimate:train_hours"
    ),
)
