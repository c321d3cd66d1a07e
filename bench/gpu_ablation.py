"""The ablation on a GPU at the shapes of Qwen2.5-7B and 32B, against the authors' way, with peak memory.

python -m bench.gpu_ablation [--shape 7b|32b|toy] [--rows 16] [--stride 16]

Random bfloat16 weights, one rollout of 2048 tokens, every `stride`-th component and layer. Ours and the authors' way
(see bench/ablation.py) take turns in one run. `toy` is a rehearsal that runs on a CPU.
"""

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
import torch

from assets.ablation.edits import entry_point
from assets.ablation.memory import Shape, plan_memory
from bench.ablation import Workload, workload
from bench.gpu_clock import wall_seconds
from bench.gpu_shapes import SHAPES, qwen2
from bench.gpu_versions import accept_older

TOKENS, TURNS = 2048, 3


def report_memory(work: Workload) -> None:
    """Measured peak against the memory model's prediction."""
    shape = Shape.of(work.adapted, TOKENS, TOKENS)
    entries = {min(map(entry_point, part.components)) for part in work.parts}
    plan = plan_memory(shape, len(entries), work.tokens_per_batch)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work.ours()
    peak = torch.cuda.max_memory_allocated() - before + shape.weights
    print(f"peak {peak / 2**30:.2f} GiB is {peak / plan.peak_bytes:.2f} of the predicted; {plan}")


def main(argv: Sequence[str] | None = None) -> None:
    """Warm up, take turns, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--stride", type=int, default=16)
    arguments = parser.parse_args(argv)
    accept_older()
    device = "cpu" if arguments.shape == "toy" else "cuda"
    work = workload(
        qwen2(arguments.shape),
        tokens=TOKENS,
        rows=arguments.rows,
        stride=arguments.stride,
        device=device,
        dtype=torch.bfloat16,
    )
    mine, theirs = work.ours(), work.authors()
    rates, ratios = [], []
    for turn in range(TURNS):
        ours, authors = wall_seconds(device, work.ours), wall_seconds(device, work.authors)
        rates.append(len(work.parts) * TOKENS / ours)
        ratios.append(authors / ours)
        print(f"turn {turn}: ours {ours:.2f} s, authors {authors:.2f} s, ratio {ratios[-1]:.2f}")
    apart = float(np.max(np.abs(np.subtract(mine, theirs)) / np.maximum(np.abs(theirs), 1e-3 * TOKENS)))
    rate = statistics.median(rates)
    print(f"{len(work.parts)} units: {rate:.0f} unit-tokens/s, {min(ratios):.2f}-{max(ratios):.2f} x the authors' way")
    print(f"largest relative difference {apart:.1e}")
    if device == "cuda":
        report_memory(work)


if __name__ == "__main__":
    main()
