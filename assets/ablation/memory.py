"""How much memory a passage's edited passes take, and where the full run's residual stream is kept because of it.

Shapes: N rows, T tokens, D hidden, P scored positions.
"""

import os
from dataclasses import dataclass

import torch

from assets.ablation.adapted import AdaptedModel
from assets.ablation.divergence import columns_per_slice
from assets.ablation.stream import Keep
from resources.models import head_size

SAFE = 0.9
"""Share of the device that the plan may fill: the rest is the allocator's fragmentation and the runtime's own."""


@dataclass(frozen=True)
class Shape:
    """What the memory of a pass depends on."""

    tokens: int
    scored: int
    hidden: int
    wide: int
    """The MLP's inner width."""
    heads: int
    """Width of all query heads."""
    kv: int
    """Width of all key or value heads."""
    vocab: int
    item: int
    """Bytes of one activation."""
    weights: int
    """Bytes of the model and the adapter."""
    device: torch.device

    @classmethod
    def of(cls, model: AdaptedModel, tokens: int, scored: int) -> "Shape":
        """From a loaded model."""
        config = model.base.config
        head = head_size(config)
        adapter = sum(model.adapter.A[c].numel() + model.adapter.B[c].numel() for c in model.live)
        return cls(
            tokens=tokens,
            scored=scored,
            hidden=config.hidden_size,
            wide=config.intermediate_size,
            heads=head * config.num_attention_heads,
            kv=head * config.num_key_value_heads,
            vocab=config.vocab_size,
            item=model.dtype.itemsize,
            weights=sum(p.numel() * p.element_size() for p in model.base.parameters()) + 4 * adapter,
            device=model.device,
        )


@dataclass(frozen=True)
class MemoryPlan:
    """What was decided, and the peak that follows."""

    keep: Keep
    rows: int
    """Edits per batch."""
    peak_bytes: int
    """On the device, weights included."""


def stream_bytes(shape: Shape, num_points: int) -> int:
    """The full run's residual stream at the points where edits begin."""
    return num_points * shape.tokens * shape.hidden * shape.item


def pass_bytes(shape: Shape, rows: int) -> int:
    """The largest moment of a batch: in the MLP, in attention, in a norm, or in the KL."""
    full = 4 if shape.item == 2 else 0
    stream = shape.hidden * shape.item
    norm = 2 * stream + 2 * 4 * shape.hidden + full * shape.hidden
    mlp = 2 * stream + 3 * shape.wide * shape.item
    attention = 2 * stream + (4 * shape.heads + 4 * shape.kv) * shape.item
    # a CPU reads the adapter's inputs in float32, row by row
    one_row = 0 if shape.device.type == "cuda" else full * shape.tokens * max(shape.wide, shape.hidden)
    return max(rows * shape.tokens * max(norm, mlp, attention) + one_row, _kl_bytes(shape, rows))


def plan_memory(shape: Shape, num_points: int, tokens_per_batch: int, total_bytes: int | None = None) -> MemoryPlan:
    """Keep the stream on the device, else on the host, else make it again; halve the batch until a pass fits.

    `total_bytes`: the device's memory; None: ask it. On the CPU there is no host beside the device.
    """
    room = SAFE * (total_bytes or _total_bytes(shape.device)) - shape.weights
    rows = max(1, tokens_per_batch // shape.tokens)
    while rows > 1 and pass_bytes(shape, rows) > room:
        rows //= 2
    active, stream = pass_bytes(shape, rows), stream_bytes(shape, num_points)
    if active + stream <= room:
        return MemoryPlan("device", rows, shape.weights + active + stream)
    host = _total_bytes(torch.device("cpu")) if shape.device.type != "cpu" else 0
    keep: Keep = "host" if stream <= host / 2 else "recompute"
    return MemoryPlan(keep, rows, shape.weights + active + shape.tokens * shape.hidden * shape.item)


def _kl_bytes(shape: Shape, rows: int) -> int:
    terms = 4 if shape.item == 2 else 8
    tokens = rows * shape.scored
    columns = min(shape.vocab, columns_per_slice(tokens, shape.device))
    slices = columns * (tokens * (2 * terms + shape.item) + shape.scored * (2 * terms + shape.item))
    return rows * shape.tokens * shape.hidden * shape.item + tokens * shape.hidden * shape.item + slices


def _total_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
