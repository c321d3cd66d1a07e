"""The `hf` back end: Transformers on this process's device, batches sorted by length, adapters merged."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from assets.benchmarks.codec import Codec
from assets.benchmarks.decode import Row, decode
from assets.benchmarks.engine import Arm, Completion, Request
from resources.models import ModelConfig, load_adapted, load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HfEngine:
    """One arm is loaded at a time; asking for another one loads that.

    The adapter is merged (`merge_and_unload`) as the authors did for vLLM, but in float32, then stored in the model's
    precision.
    """

    interleaves = False

    def __init__(self, model: ModelConfig, device: str, batch_size: int) -> None:
        self._model = model
        self._device = device
        self._batch_size = batch_size
        self._codec = Codec(model)
        self._loaded: tuple[str, PreTrainedModel] | None = None

    def complete(self, arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answers batch by batch, longest prompts first."""
        weights = self._weights(arm)
        rows = [self._row(request) for request in requests]
        order = sorted(range(len(rows)), key=lambda index: (-len(rows[index].prompt), index))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            decode(weights, [rows[index] for index in batch], self._codec.pad)
            yield from ((index, self._completion(rows[index])) for index in batch)

    def _row(self, request: Request) -> Row:
        prompt, stop = self._codec.encode(request.prompt), frozenset(self._codec.ids(request.stop))
        return Row(prompt, request.max_tokens, stop, request.temperature, request.seed)

    def _completion(self, row: Row) -> Completion:
        return Completion(self._codec.decode(row.tokens), len(row.tokens), "stop" if row.stopped else "length")

    def _weights(self, arm: Arm) -> "PreTrainedModel":
        if self._loaded is None or self._loaded[0] != arm.version:
            self._loaded = None
            self._loaded = (arm.version, load_arm(arm, self._model, self._device))
        return self._loaded[1]


def load_arm(arm: Arm, model: ModelConfig, device: str) -> "PreTrainedModel":
    """The arm as one plain model, the adapter merged in float32.

    Raises:
        BadInput: when model or adapter cannot be loaded or do not fit.
    """
    if arm.adapter is None:
        return load_weights(arm.weights, model, device)
    adapted = load_adapted(model.model_copy(update={"dtype": "float32"}), arm.adapter, device)
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged.to(getattr(torch, model.dtype)).eval().requires_grad_(False)
