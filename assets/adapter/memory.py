"""What the two trainings hold on one GPU, a whole replica under DDP or a share under FSDP2; and on the disk."""

from assets.adapter.config import TRAIN
from resources import memory
from resources.compute import ComputeConfig
from resources.memory import MemoryEstimate, Part, Sections
from resources.models import ModelConfig


def takes_adapter(sections: Sections) -> bool:
    """Nothing is trained: a published adapter is checked and copied."""
    return sections["lora"]["source"] != TRAIN


def takes_model(sections: Sections) -> bool:
    """The same of a published finetune."""
    return sections["full_finetune"]["source"] != TRAIN


def lora(sections: Sections, compute: ComputeConfig, _gpus: int) -> MemoryEstimate | None:
    """Frozen weights on every GPU, and a very small optimiser; None when the model's sizes are not known here."""
    model = ModelConfig.model_validate(sections["model"])
    sizes = memory.architecture(model)
    if sizes is None:
        return None
    item, rank = memory.BYTES[model.dtype], int(str(sections["lora"]["rank"]))
    trained = sizes.adapter_parameters(rank)
    return MemoryEstimate(
        (
            memory.weights(sizes, model.dtype),
            Part("adapter", 4 * trained, f"{trained / 1e6:.2f} M parameters x 4 bytes"),
            memory.adam(trained),
            _activations(sizes, compute, memory.adapted_block(sizes, item), item),
            memory.loss_chunk(sizes),
        )
    )


def full(sections: Sections, compute: ComputeConfig, gpus: int) -> MemoryEstimate | None:
    """Float32 master weights, gradients and moments divided among the GPUs; None when the model is not known here."""
    model = ModelConfig.model_validate(sections["model"])
    sizes = memory.architecture(model)
    if sizes is None:
        return None
    item = memory.BYTES[model.dtype]
    return MemoryEstimate(
        (
            memory.weights(sizes, "float32", gpus),
            memory.adam(sizes.parameters, gpus),
            memory.gathered(sizes, item),
            _activations(sizes, compute, memory.full_block(sizes, item), item),
            memory.loss_chunk(sizes),
        )
    )


def full_disk(sections: Sections) -> MemoryEstimate | None:
    """The newest checkpoint and the one that is being written; None when nothing is trained or the model unknown."""
    sizes = memory.architecture(ModelConfig.model_validate(sections["model"]))
    if sizes is None or takes_model(sections):
        return None
    how = f"2 checkpoints x {sizes.parameters / 1e9:.2f} B parameters x (4 weight + 8 Adam) bytes"
    return MemoryEstimate((Part("checkpoints", 2 * 12 * sizes.parameters, how),))


def _activations(sizes: memory.Architecture, compute: ComputeConfig, block: int, item: int) -> Part:
    return memory.trained_activations(sizes, compute.tokens_per_batch, compute.recomputed_layers, block, item)
