"""What the two trainings hold on one GPU, a whole replica under DDP or a share under FSDP2; and on the disk."""

from assets.adapter.config import TRAIN, FullFinetuneConfig, LoraConfig
from resources import memory
from resources.memory import MemoryEstimate, Part, Setup
from resources.section import Sections, section_of


def takes_adapter(sections: Sections) -> bool:
    """Nothing is trained: a published adapter is checked and copied."""
    return section_of(sections, LoraConfig).source != TRAIN


def takes_model(sections: Sections) -> bool:
    """The same of a published finetune."""
    return section_of(sections, FullFinetuneConfig).source != TRAIN


def lora(on: Setup) -> MemoryEstimate:
    """Frozen weights on every GPU, and a very small optimiser."""
    trained = on.sizes.adapter_parameters(on.knobs(LoraConfig).rank)
    item = memory.BYTES[on.model.dtype]
    return MemoryEstimate(
        (
            memory.weights(on.sizes, on.model.dtype),
            Part("adapter", 4 * trained, f"{trained / 1e6:.2f} M parameters x 4 bytes"),
            memory.adam(trained),
            _activations(on, memory.adapted_block(on.sizes, item), item),
            memory.loss_chunk(on.sizes),
        )
    )


def full(on: Setup) -> MemoryEstimate:
    """Float32 master weights, gradients and moments divided among the GPUs."""
    item = memory.BYTES[on.model.dtype]
    return MemoryEstimate(
        (
            memory.weights(on.sizes, "float32", on.gpus),
            memory.adam(on.sizes.parameters, on.gpus),
            memory.gathered(on.sizes, item),
            _activations(on, memory.full_block(on.sizes, item), item),
            memory.loss_chunk(on.sizes),
        )
    )


def full_disk(on: Setup) -> MemoryEstimate | None:
    """The newest checkpoint and the one that is being written; None when nothing is trained."""
    if takes_model(on.sections):
        return None
    how = f"2 checkpoints x {on.sizes.parameters / 1e9:.2f} B parameters x (4 weight + 8 Adam) bytes"
    return MemoryEstimate((Part("checkpoints", 2 * 12 * on.sizes.parameters, how),))


def _activations(on: Setup, block: int, item: int) -> Part:
    tokens, recomputed = on.compute.tokens_per_batch, on.compute.recomputed_layers
    return memory.trained_activations(on.sizes, tokens, recomputed, block, item)
