"""What generation holds on one GPU: weights divided by vLLM's tensor parallelism, and at least one question's cache."""

from resources import memory
from resources.compute import ComputeConfig
from resources.memory import MemoryEstimate, Sections
from resources.models import ModelConfig


def asks_server(sections: Sections) -> bool:
    """Somebody else generates, perhaps on the very GPUs that this job would wait for."""
    return sections["benchmarks"]["backend"] == "server"


def generation(sections: Sections, _compute: ComputeConfig, _gpus: int) -> MemoryEstimate | None:
    """With vLLM the cache of one full context must fit; with hf, that of a whole batch. None: model not known here."""
    model = ModelConfig.model_validate(sections["model"])
    sizes = memory.architecture(model)
    if sizes is None:
        return None
    asked = sections["benchmarks"]
    shared, rows = {
        "vllm": (int(str(asked["tensor_parallel_size"])), 1),
        "hf": (1, int(str(asked["batch_size"]))),
    }[str(asked["backend"])]
    context = int(str(asked["context"]))
    return MemoryEstimate(
        (
            memory.weights(sizes, model.dtype, shared),
            memory.kv_cache(sizes, rows * context, shared),
            memory.passing_activations(sizes, 8192),
        )
    )
