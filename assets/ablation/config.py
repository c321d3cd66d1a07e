"""Every knob of the ablation and of the steering, and their three stages."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from assets.activations.config import Positions
from resources.components import parse_component
from resources.section import Section
from resources.stage import Needs, Stage
from resources.units import parse_unit


class AblationConfig(Section):
    """The `ablation` section."""

    num_rollouts: int = Field(default=16, ge=1)
    """Rollouts the KL is measured on, drawn with `seed` (authors' script: 16)."""
    max_tokens: int = Field(default=2048, ge=2)
    """First tokens of each rollout (authors' script: 2048)."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the draw of rollouts (authors' script: 42)."""
    positions: Positions = "all"
    """`all` tokens (authors' script), or only positions that predict an `assistant` token."""
    replacement: Literal["zero", "mean"] = "zero"
    """What an ablated activation becomes: 0 (authors' script) or the component's mean over all captured tokens."""
    group_size: int = Field(default=8, ge=1)
    """Neighbouring layers ablated together (authors' script: 8)."""
    components: tuple[str, ...] | None = None
    """Components ablated one by one, such as `L44.gate_proj`; null: every component of the adapter (paper)."""
    greedy_steps: int = Field(default=0, ge=0)
    """Steps of cumulative ablation, each adding the part that raises KL most; 0: off (paper: none)."""
    greedy_part: Literal["layer", "component"] = "layer"
    """What one greedy step may add."""
    slices: int = Field(default=4, ge=1, le=64)
    """Shares of work per rollout: the finest grain for processes and for resuming."""

    @field_validator("components")
    @classmethod
    def _named(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            parse_component(name)
        return value


class LatentAblationConfig(Section):
    """The `latent_ablation` section; rollouts, tokens, positions and slices are those of `ablation`."""

    latents: int = Field(default=16, ge=1)
    """SAE latents ablated one by one: those with the largest activation mass on the drawn rollouts (paper: none)."""


class SteeringConfig(Section):
    """The `steering` section."""

    units: tuple[str, ...] = ()
    """What is steered, such as `adapter:L44.gate_proj:+` or `latent:448`; empty: chosen by the two counts below."""
    strongest_components: int = Field(default=1, ge=0)
    """Components with the largest write (99th percentile x scale x norm of B), in their + polarity."""
    strongest_latents: int = Field(default=1, ge=0)
    """SAE latents with the largest activation mass on the drawn rollouts; none with `mode: scale`."""
    mode: Literal["add", "scale"] = "add"
    """`add` factor x the unit's own 99th percentile, or multiply a component's activation by the factor; from the token
    on that predicts the assistant's first one, and KL and CE are of the assistant's tokens."""
    factors: tuple[float, ...] = Field(default=(0, 1, 2, 5, 10, 20, 50, 100), min_length=1)
    """Doses (paper: up to 100, no effect below 50)."""
    num_rollouts: int = Field(default=16, ge=1)
    """Rollouts on which KL and CE are measured, drawn with `seed`."""
    max_tokens: int = Field(default=2048, ge=2)
    """First tokens of each of those rollouts."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the draws, of the random control directions and of sampling."""
    num_problems: int = Field(default=32, ge=0)
    """Problems continued freely, drawn with `seed` from the dataset; 0: no continuations."""
    samples: int = Field(default=2, ge=0)
    """Sampled continuations per problem and dose, beside the greedy one."""
    temperature: float = Field(default=0.7, gt=0, le=10)
    """Of the sampled continuations."""
    max_new_tokens: int = Field(default=2048, ge=1)
    """Longest continuation."""
    batch_rows: int = Field(default=32, ge=1)
    """Continuations decoded together; the unit of work between processes."""
    words: tuple[str, ...] = ("Wait", "Hmm", "Alternatively")
    """Words that count as backtracking (paper: Wait)."""

    @field_validator("units")
    @classmethod
    def _parsed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for unit in value:
            if parse_unit(unit).kind == "neuron":
                raise ValueError(f"{unit} is of the base model: steer adapter:L3.gate_proj:+ or latent:448")
        return value

    @model_validator(mode="after")
    def _scalable(self) -> "SteeringConfig":
        latents = [unit for unit in self.units if parse_unit(unit).kind == "latent"]
        if latents and self.mode == "scale":
            raise ValueError(f"{latents[0]} reads all layers at once, so it cannot be scaled: set mode to add")
        return self

    @model_validator(mode="after")
    def _something(self) -> "SteeringConfig":
        if not (self.units or self.strongest_components or self.chosen_latents):
            raise ValueError("there is nothing to steer: name units, or raise strongest_components")
        return self

    @property
    def chosen_latents(self) -> int:
        """Latents that are chosen by their mass: one reads all layers at once, so it cannot be scaled."""
        return 0 if self.units or self.mode == "scale" else self.strongest_latents

    @property
    def reads_latents(self) -> bool:
        """Whether it matters where latents fire."""
        return self.chosen_latents > 0 or any(parse_unit(unit).kind == "latent" for unit in self.units)


ABLATION_KL = Stage(
    asset="ablation_kl",
    room="ablation",
    code_version=7,
    call="assets.ablation.ablate:ablate",
    artifact="assets.ablation.artifact:AblationKl",
    sections=("model", "ablation"),
    inputs=("s1k_dataset", "lora_checkpoint", "activation_shards"),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=60,
        memory_model="resources.memory:forward",
        time_model="assets.ablation.estimate:ablation_hours",
    ),
)

LATENT_KL = Stage(
    asset="latent_kl",
    room="ablation",
    code_version=3,
    call="assets.ablation.latents:ablate_latents",
    artifact="assets.ablation.artifact:LatentKl",
    sections=("model", "ablation", "latent_ablation"),
    inputs=("s1k_dataset", "lora_checkpoint", "activation_shards", "batchtopk_sae"),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=60,
        memory_model="resources.memory:forward",
        time_model="assets.ablation.estimate:latent_hours",
    ),
)

STEERING_EFFECTS = Stage(
    asset="steering_effects",
    room="ablation",
    code_version=12,
    call="assets.ablation.steer:steer",
    artifact="assets.ablation.artifact:SteeringEffects",
    sections=("model", "steering"),
    inputs=("s1k_dataset", "lora_checkpoint", "activation_shards", "batchtopk_sae"),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=120,
        memory_model="resources.memory:forward",
        time_model="assets.ablation.estimate:steering_hours",
    ),
)
