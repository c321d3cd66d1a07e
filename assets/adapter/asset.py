"""`lora_checkpoint` and `full_finetune_checkpoint` as Dagster assets."""

from assets.adapter.config import FULL_FINETUNE_CHECKPOINT, LORA_CHECKPOINT
from dagster_project.materialize import experiment_asset

lora_checkpoint = experiment_asset(
    LORA_CHECKPOINT,
    description="The rank-1 LoRA of every attention and MLP matrix, trained on the rollouts; a PEFT folder.",
    kinds={"pytorch", "safetensors"},
)
full_finetune_checkpoint = experiment_asset(
    FULL_FINETUNE_CHECKPOINT,
    description="The base model with all weights trained on the rollouts: the paper's upper bound.",
    kinds={"pytorch", "safetensors"},
)

ASSETS = [lora_checkpoint, full_finetune_checkpoint]
