"""How much arithmetic a training needs, and how much of it the machine could do: the two sides of MFU.

Counted is what the mathematics asks for: 2 FLOP per weight and token forward, 2 for the input's gradient, 2 more for
the weight's gradient where weights are trained; recomputation earns nothing.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from resources.models import head_size
from resources.onednn import linear

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s by NVIDIA's data sheets, by a part of the device's name."""


@dataclass(frozen=True)
class Work:
    """FLOP of a model's training, per token and per token squared."""

    per_token: float
    per_predicted: float
    """The output head, which only predicted tokens pass."""
    per_squared_length: float
    """Causal attention of one rollout of L tokens, times L squared."""

    def of(self, lengths: list[int], predicted: int) -> float:
        """FLOP of rollouts with these lengths, `predicted` tokens of which have a loss."""
        squares = sum(length * length for length in lengths)
        return self.per_token * sum(lengths) + self.per_predicted * predicted + self.per_squared_length * squares


def training_work(architecture: "PretrainedConfig", *, trains_weights: bool) -> Work:
    """The work of a Qwen2 model; `trains_weights` is False for an adapter, whose own few FLOP are left out."""
    hidden, layers = architecture.hidden_size, architecture.num_hidden_layers
    queries = architecture.num_attention_heads * head_size(architecture)
    keys = architecture.num_key_value_heads * head_size(architecture)
    weights = hidden * (2 * queries + 2 * keys) + 3 * hidden * architecture.intermediate_size
    per_weight = 6.0 if trains_weights else 4.0
    return Work(
        per_token=per_weight * layers * weights,
        per_predicted=per_weight * hidden * architecture.vocab_size,
        # scores and values: 2 products forward and 4 backward of L^2 / 2 pairs, 2 FLOP each
        per_squared_length=6.0 * layers * queries,
    )


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Most FLOP/s of the device: its data sheet's, or what a matrix product reaches here."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = [peak for part, peak in PEAKS.items() if part in name]
        if known:
            return known[0]
    return _measured(device, dtype)


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    size = 512
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        linear(a, a)[0, 0].item()
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
