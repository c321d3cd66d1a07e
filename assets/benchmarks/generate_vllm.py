"""The `vllm` back end: one engine for the base and all adapters, another one for each whole model.

Read and run with vLLM 0.30.0. One call per arm and never base and adapters mixed: on the CPU build, base requests in a
batch with adapter requests read the last adapter slot. Ablated arms are adapters with B = 0.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from assets.benchmarks.codec import Codec
from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.engine import Arm, Completion, Request
from resources.adapters import read_settings
from resources.errors import BadInput
from resources.hub import fetched
from resources.models import MODEL_FILES, ModelConfig, place

if TYPE_CHECKING:
    from vllm import LLM  # pyright: ignore[reportMissingImports]

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as its largest rank, and nothing between (MaxLoRARanks of 0.30.0)."""
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


class VllmEngine:
    """One engine is up at a time; asking for an arm with other weights replaces it."""

    interleaves = True

    def __init__(self, model: ModelConfig, config: BenchmarksConfig, arms: Sequence[Arm]) -> None:
        """`arms`: all that will be asked; the largest rank of their adapters is reserved."""
        self._model = model
        self._config = config
        self._codec = Codec(model)
        self._rank = max((read_settings(arm.adapter).r for arm in arms if arm.adapter), default=0)
        self._engine: tuple[str, LLM] | None = None
        self._lora_ids: dict[str, int] = {}

    def complete(self, arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answers as the engine finishes them."""
        engine = self._up(arm).llm_engine
        lora = self._lora(arm)
        for index, request in enumerate(requests):
            engine.add_request(str(index), self._prompt(request), self._sampling(request), lora_request=lora)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    yield int(output.request_id.split("-")[0]), self._completion(output.outputs[0])

    def _prompt(self, request: Request) -> Any:
        from vllm.inputs import TokensPrompt  # pyright: ignore[reportMissingImports]

        return TokensPrompt(prompt_token_ids=self._codec.encode(request.prompt))

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        return SamplingParams(
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            seed=request.seed if request.temperature else None,
            stop_token_ids=self._codec.ids(request.stop),
            # Only our own stops end an answer, as in the other back ends.
            ignore_eos=True,
            skip_special_tokens=False,
            detokenize=False,
        )

    def _completion(self, output: Any) -> Completion:
        tokens = list(output.token_ids)
        stopped = output.finish_reason == "stop"
        kept = tokens[:-1] if stopped else tokens
        return Completion(self._codec.decode(kept), len(kept), "stop" if stopped else "length")

    def _lora(self, arm: Arm) -> Any:
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        if arm.adapter is None:
            return None
        number = self._lora_ids.setdefault(arm.version, len(self._lora_ids) + 1)
        return LoRARequest(arm.name, number, str(arm.adapter))

    def _up(self, arm: Arm) -> "LLM":
        weights = str(arm.weights)
        if self._engine is None or self._engine[0] != weights:
            self._down()
            self._engine = (weights, self._start(weights))
        return self._engine[1]

    def _start(self, weights: str) -> "LLM":
        take_gpus(self._config.tensor_parallel_size)
        try:
            from vllm import LLM  # pyright: ignore[reportMissingImports]
            from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise BadInput(
                "benchmarks.backend is vllm, which is not installed: pip install -e '.[gpu]', or set it to hf"
            ) from error
        is_base = weights == str(self._model.name)
        base = base_folder(self._model)
        return LLM(
            model=base if is_base else place(weights),
            tokenizer=base,
            dtype=self._model.dtype,
            trust_remote_code=self._model.trust_remote_code and is_base,
            tensor_parallel_size=self._config.tensor_parallel_size,
            gpu_memory_utilization=self._config.gpu_memory_utilization,
            max_model_len=self._config.context,
            generation_config="vllm",
            seed=self._config.seed,
            # The CPU build has no graphs to capture.
            enforce_eager=current_platform.is_cpu(),
            **self._lora_room(is_base),
        )

    def _lora_room(self, is_base: bool) -> dict[str, Any]:
        if not is_base or not self._rank:
            return {}
        largest = next(rank for rank in _LORA_RANKS if rank >= self._rank)
        return {"enable_lora": True, "max_lora_rank": largest, "max_loras": 1}

    def _down(self) -> None:
        """Give the GPUs' memory back before the next engine."""
        if self._engine is None:
            return
        import gc

        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory  # pyright: ignore[reportMissingImports]

        self._engine[1].llm_engine.engine_core.shutdown()
        self._engine = None
        gc.collect()
        cleanup_dist_env_and_memory()


def base_folder(model: ModelConfig) -> str:
    """The base model's folder, of a hub id the snapshot of its commit.

    By itself vLLM asks the hub for files that are all in the cache, and for the tokenizer of another commit: beside a
    full finetune it knows none, and takes the tip.
    """
    return str(fetched(model.name, model.revision, files=(*MODEL_FILES, "*.py")))


def take_gpus(tensor_parallel_size: int) -> None:
    """Give this process its own GPUs, and hide torchrun from vLLM, which starts its own workers."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if "LOCAL_RANK" in os.environ:
        leased = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = leased.split(",") if leased else [str(device) for device in range(rank + tensor_parallel_size)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices[rank : rank + tensor_parallel_size])
    for name in (*_TORCHRUN, *(name for name in os.environ if name.startswith("TORCHELASTIC_"))):
        os.environ.pop(name, None)
