"""Every knob of capture, and the two stages that do it."""

from typing import Literal

from pydantic import Field

from resources.section import Section
from resources.stage import Needs, Stage

Positions = Literal["all", "assistant"]
Encoding = Literal["plain", "byte_stream_split"]


class ActivationsConfig(Section):
    """The `activations` section: how the adapter's scalars are captured and laid out on disk."""

    positions: Positions = "all"
    """Which tokens are kept: all of them (paper), or the assistant's only. The model always reads whole rollouts.
    Latents are trained, explained and ablated on the kept tokens."""
    shard_rows: int = Field(default=65_536, ge=1, le=16_777_216)
    """Most tokens of one shard, unless one rollout is longer: bounds memory (59 MB for 448 components) and what a
    killed run computes again. Rollouts never span shards."""
    row_group_rows: int = Field(default=8192, ge=1, le=1_048_576)
    """Tokens of one Parquet row group, the least that is read at once (7 MB for 448 components)."""
    encoding: Encoding = "plain"
    """How scalars lie in a Parquet page: byte_stream_split takes 6 % less disk, but DuckDB 2.0 cannot read it."""


class NeuronsConfig(Section):
    """The `neurons` section: the MLP baseline, read from the base model without the adapter."""

    per_layer: int = Field(default=60, ge=1, le=1_000_000)
    """First neurons of each MLP (paper: 60, so 3840; the authors' code: 6)."""
    activation: Literal["post", "pre"] = "post"
    """post: what enters down_proj, SiLU(gate) x up (paper: "neurons"); pre: up_proj's output (authors' code)."""
    positions: Positions = "all"
    """Which tokens are kept: all of them (paper), or the assistant's only."""
    shard_rows: int = Field(default=32_768, ge=1, le=16_777_216)
    """Most tokens of one shard, unless one rollout is longer (252 MB for 3840 neurons)."""
    row_group_rows: int = Field(default=1024, ge=1, le=1_048_576)
    """Tokens of one Parquet row group (8 MB for 3840 neurons)."""
    encoding: Encoding = "plain"
    """How values lie in a Parquet page, as in `activations`."""


ACTIVATION_SHARDS = Stage(
    asset="activation_shards",
    room="activations",
    code_version=2,
    call="assets.activations.capture:capture_states",
    artifact="assets.activations.artifact:ActivationShards",
    sections=("model", "activations"),
    inputs=("s1k_dataset", "lora_checkpoint"),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=60,
        memory_model="resources.memory:forward",
        time_model="assets.activations.estimate:capture_hours",
    ),
)

NEURON_SHARDS = Stage(
    asset="neuron_shards",
    room="activations",
    code_version=2,
    call="assets.activations.capture:capture_neurons",
    artifact="assets.activations.artifact:ActivationShards",
    sections=("model", "neurons"),
    inputs=("s1k_dataset",),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=120,
        memory_model="resources.memory:forward",
        time_model="assets.activations.estimate:capture_hours",
    ),
)
