"""Capture beside the bare forward pass on a GPU, for the shapes of Qwen2.5 with random weights.

python -m bench.gpu_capture --shape 7b|32b [--tokens 262144] [--tokens-per-batch 32768] [--turns 3] [--shard-rows 65536]

Needs little beside this repository (bench/gpu_versions.py), no network and no model files. `--shape toy --device
cpu` tries the script itself. Goal: capture at 0.95 of the bare pass or more, and a writer that is never waited for
longer than 5 %.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from assets.activations.probe import adapter_probe, neuron_probe
from bench.capture import bare, build, ours, plans
from bench.gpu_clock import wall_seconds
from bench.gpu_shapes import SHAPES, qwen2
from bench.gpu_versions import accept_older
from resources.attention import use_varlen_attention

PROBES = ("adapter", "neurons")


def main(arguments: Sequence[str] | None = None) -> None:
    """Take turns and print ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--tokens-per-batch", type=int, default=32_768)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--shard-rows", type=int, default=65_536, help="fewer let a short run write while it computes")
    parser.add_argument("--what", nargs="+", choices=PROBES, default=list(PROBES))
    options = parser.parse_args(arguments)
    accept_older()
    device, dtype = options.device, torch.bfloat16 if options.device.startswith("cuda") else torch.float32
    config = qwen2(options.shape)
    model = build(config, device, dtype)
    use_varlen_attention(model)
    longest = min(20_000, options.tokens_per_batch)
    shards = plans(options.tokens, longest // 10, longest, config.vocab_size, options.shard_rows)
    tokens = sum(shard.num_rows for shard in shards)
    base: Any = model.get_base_model()
    print(f"Qwen2.5 {options.shape}, {dtype}, {tokens} tokens, {device}, torch {torch.__version__}")
    with torch.inference_mode(), tempfile.TemporaryDirectory() as name:
        for what in options.what:
            probe = adapter_probe(model) if what == "adapter" else neuron_probe(base, 60, "post")
            bare(probe.backbone, shards, device, options.tokens_per_batch)  # every shape is new to cuDNN once
            ratios, waits, rates = [], [], []
            for turn in range(options.turns):
                plain = wall_seconds(
                    device, lambda probe=probe: bare(probe.backbone, shards, device, options.tokens_per_batch)
                )
                shelves = []
                folder = Path(name, f"{what}{turn}")
                folder.mkdir()
                capture = wall_seconds(
                    device,
                    lambda probe=probe, folder=folder, shelves=shelves: shelves.append(
                        ours(probe, shards, device, options.tokens_per_batch, folder)
                    ),
                )
                ratios.append(plain / capture)
                waits.append(shelves[0].waited_s / capture)
                rates.append(tokens / capture)
            print(
                f"{what}: {len(probe.columns)} columns, {statistics.median(rates):.0f} tokens/s, "
                f"{statistics.median(ratios):.3f} of bare, writer waited for {max(waits):.3f} at most"
            )
    if device.startswith("cuda"):
        print(f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
