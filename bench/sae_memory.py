"""Peak memory and reading of the SAE training as the shards grow past memory: flat is the goal.

    python -m bench.sae_memory                 # 1, 5 and 20 M tokens of 448 components, one process each

The dictionary is small (one latent per component), since its memory does not depend on the tokens; everything that
reads, shuffles and trains is the training's own. The states repeat, so that 20 M tokens take little disk.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from assets.sae.config import SaeConfig
from assets.sae.fit import Fit
from assets.sae.shuffle import Census, Order
from resources.components import components
from resources.progress import Progress
from resources.shards import SHARD, Shards, StateBatch, write_shard

D = 448
SHARD_ROWS, GROUP_ROWS, ROLLOUT = 131_072, 16_384, 4096


def write_shards(folder: Path, tokens: int) -> None:
    """Shards of the same 1024 random states again and again, in rollouts of 4096 tokens."""
    state = np.random.default_rng(0).standard_normal((1024, D)).astype(np.float16)
    columns = tuple(component.id for component in components(D // 7))
    for number, start in enumerate(range(0, tokens, SHARD_ROWS)):
        row = np.arange(start, min(start + SHARD_ROWS, tokens), dtype=np.int32)
        batch = StateBatch(row // ROLLOUT, row % ROLLOUT, row % ROLLOUT, state[row % len(state)])
        write_shard(folder / SHARD.format(number), batch, columns, "bench", GROUP_ROWS)


def measure(folder: Path) -> str:
    """Train for one epoch; a row of the table."""
    config = SaeConfig(k=2, batch_tokens=4096)
    census = Census.take(Shards.open(folder))
    order = Order(census.rows(census.rollouts, np.arange(D)), config.batch_tokens, config.shuffle_tokens, config.seed)
    fit = Fit(config, order, D, "cpu")
    began = time.process_time()
    fit.run(Progress(lambda _: None), "step")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"| {order.rows.num_tokens:,} | {fit.steps:,} | {peak:,.0f} | {time.process_time() - began:,.0f} |"


def main() -> None:
    """A process per size, so that each has a peak of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--in-process", metavar="FOLDER", help="used by the bench itself")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.in_process:
        print(measure(Path(options.in_process)))
        return
    print("| tokens | steps | peak MB | CPU s |\n|---|---|---|---|", flush=True)
    for tokens in options.tokens:
        with tempfile.TemporaryDirectory() as folder:
            write_shards(Path(folder), tokens)
            subprocess.run([sys.executable, "-m", "bench.sae_memory", "--in-process", folder], check=True)


if __name__ == "__main__":
    main()
