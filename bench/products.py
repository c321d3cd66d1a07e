"""Seconds of float32 products by `resources.onednn.linear` beside torch's own, in one run.

    python -m bench.products [--threads 1] [--turns 15]

Rows x inputs x outputs of the mini world's matrices, the ablation bench's, an SAE's encoder, and the gradients of one:
of the input (the matrix transposed), of the matrix (the slopes transposed). Both ways take turns; the medians compare.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from resources.onednn import linear

SHAPES = (
    (64, 128, 128),
    (64, 128, 384),
    (200, 128, 384),
    (2048, 128, 384),
    (2048, 384, 128),
    (2048, 256, 1408),
    (2048, 1408, 256),
    (256, 448, 3584),
    (2048, 2048, 2048),
)
REPEATED = 5
"""Products that are timed together: a short one takes as long as the clock's own uncertainty."""


def seconds(run: Callable[[], object]) -> float:
    """Of one product."""
    began = time.perf_counter()
    for _ in range(REPEATED):
        run()
    return (time.perf_counter() - began) / REPEATED


def compare(name: str, flops: int, ours: Callable[[], object], torchs: Callable[[], object], turns: int) -> None:
    """One row of the table."""
    took = [(seconds(ours), seconds(torchs)) for _ in range(turns + 1)][1:]  # the first makes oneDNN's kernel
    rate, torch_rate = (flops / statistics.median(way) / 1e9 for way in zip(*took, strict=True))
    share = statistics.median(mine / theirs for mine, theirs in took)
    print(f"| {name} | {rate:.0f} | {torch_rate:.0f} | {share:.2f} |")


@torch.inference_mode()
def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        "| rows x inputs x outputs | oneDNN, GFLOP/s | torch, GFLOP/s | oneDNN's time of torch's |\n|---|---|---|---|"
    )
    for rows, inputs, outputs in SHAPES:
        x, weight_OI, slope = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
        name, flops = f"{rows} x {inputs} x {outputs}", 2 * rows * inputs * outputs
        products = {"": (x, weight_OI)}
        if (rows, inputs) == (2048, 256):
            products |= {", of the input": (slope, weight_OI.T), ", of the matrix": (slope.T, x.T)}
        for kind, (left, right) in products.items():
            compare(
                name + kind,
                flops,
                lambda left=left, right=right: linear(left, right),
                lambda left=left, right=right: torch.nn.functional.linear(left, right),
                options.turns,
            )


if __name__ == "__main__":
    main()
