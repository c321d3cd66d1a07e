"""Every knob of the two trainings, and the stages that run them."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from resources.components import PROJECTIONS, Component, Named, Projection, in_model_order
from resources.errors import BadInput
from resources.revision import check_commit
from resources.section import Section
from resources.stage import Needs, Stage

TRAIN = "train"
"""Value of `source` that means: train it here."""


class TrainingConfig(Section):
    """What LoRA and full finetune share; the paper trains both with one recipe and two learning rates."""

    source: str = TRAIN
    """`train`, or a published checkpoint to take instead: hub id or local folder."""
    revision: str | None = None
    """Commit of a published checkpoint on the hub; required for a hub id, so that the key is exact."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Peak learning rate (training script)."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's first moment decay (training script)."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's second moment decay (training script)."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon (transformers' default, which the training script keeps)."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """AdamW's decoupled weight decay; not on biases and norms (training script)."""
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    """Share of all steps in which the learning rate rises linearly from 0 (training script)."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after warm-up; cosine and linear end at 0 (training script: cosine)."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0: never (transformers' default, which the training script keeps)."""
    epochs: int = Field(default=5, ge=1, le=1000)
    """Passes over all rollouts (paper)."""
    batch_size: int = Field(default=16, ge=1)
    """Rollouts of one optimiser step over all processes (training script: 8 GPUs x 1 x accumulation 2)."""
    block_size: int | None = Field(default=None, ge=8)
    """Longest rollout trained on, tokens; null: as long as `dataset.block_size` left it (training script: 20000)."""
    seed: int = Field(default=42, ge=0)
    """Seed of the order of rollouts and of A's initial values."""

    @model_validator(mode="after")
    def _pinned(self) -> "TrainingConfig":
        if self.source != TRAIN:
            check_commit(self.source, self.revision)
        return self

    def sources(self) -> tuple[str, ...]:
        """The published checkpoint's folder, when it is a local one."""
        return () if self.source == TRAIN else (self.source,)


class LoraConfig(TrainingConfig):
    """The `lora` section: the adapter that the paper reads as 448 scalars."""

    rank: int = Field(default=1, ge=1, le=256)
    """Rank of every component (paper: 1)."""
    alpha: float = Field(default=16.0, gt=0, le=1e6)
    """LoRA alpha; the update is scaled by alpha / sqrt(rank) with rsLoRA (training script)."""
    rslora: bool = True
    """Scale by alpha / sqrt(rank), not alpha / rank; the same at rank 1 (training script)."""
    projections: tuple[Projection, ...] = Field(default=PROJECTIONS, min_length=1)
    """Adapted matrices of each layer (paper: all seven)."""
    layers: tuple[int, ...] | None = None
    """Adapted layers by number; null: `layer_start` to `layer_end` by `layer_stride`."""
    layer_start: int = Field(default=0, ge=0)
    """First adapted layer (paper: 0)."""
    layer_end: int | None = Field(default=None, ge=1)
    """One past the last adapted layer; null: the model's last (paper)."""
    layer_stride: int = Field(default=1, ge=1)
    """Every how many layers one is adapted (paper: 1)."""

    @field_validator("projections", "layers")
    @classmethod
    def _in_order(cls, value: tuple[Named, ...] | None) -> tuple[Named, ...] | None:
        return None if value is None else in_model_order(value)

    def components(self, num_layers: int) -> tuple[Component, ...]:
        """What is adapted of a model with so many layers, layer-major.

        Raises:
            BadInput: for a layer that the model does not have.
        """
        end = num_layers if self.layer_end is None else self.layer_end
        layers = range(self.layer_start, end, self.layer_stride) if self.layers is None else self.layers
        beyond = [layer for layer in layers if not 0 <= layer < num_layers]
        if beyond:
            raise BadInput(f"lora names layer {beyond[-1]}, but the model has layers 0 to {num_layers - 1}")
        if self.layers is not None and not layers:
            raise BadInput("lora.layers names no layer: list some, or take the list away")
        if not layers:
            raise BadInput(f"lora adapts no layer: layer_start {self.layer_start} is not before layer_end {end}")
        return tuple(Component(layer, projection) for layer in layers for projection in self.projections)


class FullFinetuneConfig(TrainingConfig):
    """The `full_finetune` section: all weights, the paper's upper bound (s1's recipe)."""

    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Peak learning rate (s1's training script)."""


LORA_CHECKPOINT = Stage(
    asset="lora_checkpoint",
    room="adapter",
    code_version=4,
    call="assets.adapter.train:train_lora",
    artifact="assets.adapter.artifact:LoraCheckpoint",
    sections=("model", "lora"),
    inputs=("s1k_dataset",),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=240,
        idle_when="assets.adapter.memory:takes_adapter",
        memory_model="assets.adapter.memory:lora",
        time_model="assets.adapter.estimate:lora_hours",
    ),
)
FULL_FINETUNE_CHECKPOINT = Stage(
    asset="full_finetune_checkpoint",
    room="adapter",
    code_version=5,
    call="assets.adapter.train:train_full",
    artifact="assets.adapter.artifact:FullFinetuneCheckpoint",
    sections=("model", "full_finetune"),
    inputs=("s1k_dataset",),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=480,
        saving_s=900,  # 393 GB at 0.4 GB/s
        idle_when="assets.adapter.memory:takes_model",
        memory_model="assets.adapter.memory:full",
        disk_model="assets.adapter.memory:full_disk",
        time_model="assets.adapter.estimate:full_hours",
    ),
)
