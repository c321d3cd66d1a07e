"""What generation holds on one GPU: weights divided by vLLM's tensor parallelism, and at least one question's cache."""

from assets.benchmarks.config import BenchmarksConfig
from resources import memory
from resources.memory import MemoryEstimate, Setup
from resources.section import Sections, section_of


def asks_server(sections: Sections) -> bool:
    """Somebody else generates, perhaps on the very GPUs that this job would wait for."""
    return section_of(sections, BenchmarksConfig).backend == "server"


def generation(on: Setup) -> MemoryEstimate:
    """With vLLM the cache of one full context must fit; with hf, that of a whole batch."""
    knobs = on.knobs(BenchmarksConfig)
    shared, rows = (knobs.tensor_parallel_size, 1) if knobs.backend == "vllm" else (1, knobs.batch_size)
    return MemoryEstimate(
        (
            memory.weights(on.sizes, on.model.dtype, shared),
            memory.kv_cache(on.sizes, rows * knobs.context, shared),
            memory.passing_activations(on.sizes, 8192),
        )
    )
