"""Speed and quality of the SAE training against its peers, in one run on the same data, device and threads.

    python -m bench.sae                       # 448 components, 3584 latents, k = 16, batches of 512 and 4096
    python -m bench.sae --batches 512 --tokens 65536 --threads 1
    python -m bench.sae --turns 5 --methods floor ours ours-authors authors
    python -m bench.sae --device cuda --epochs 8 --threads 16

Peers (SAELens, dictionary_learning) are installed from the registry into an environment of their own, `.venv-peers`; it
sees this project's torch, and nothing of the project's is changed. Ours reads and shuffles Parquet shards;
the peers get the tokens as one shuffled tensor. All use one learning-rate schedule. Quality: FVU on held-out tokens by
exact BatchTopK. Every method runs with the settings of glibc and OpenMP that the launcher gives its workers (another
GOMP_SPINCOUNT if it is set). With several turns every figure is the median of its turns, ratios are taken turn by turn.
On a busy machine compare tokens per CPU second, with one thread.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bench.sae_peers import (
    DECAY,
    WARMUP,
    D,
    F,
    K,
    Step,
    peer_python,
    run_authors,
    run_dictionary_learning,
    run_sae_lens,
)

HELD_OUT = 16_384
WARMING_STEPS = 8
PROJECT = Path(__file__).parents[1]
METHODS = ("floor", "ours", "ours-authors", "dictionary_learning", "sae_lens", "authors")


def make_states(tokens: int, seed: int) -> torch.Tensor:
    """Sums of about 14 of 3000 fixed directions with Zipf frequencies, columns of uneven size, noise: [tokens, D]."""
    world, rng = np.random.default_rng(0), np.random.default_rng([1, seed])
    directions = world.standard_normal((3000, D)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    frequency = 1 / (np.arange(3000) + 10.0)
    frequency = np.minimum(frequency / frequency.sum() * 14, 0.9)
    size = np.exp(0.7 * world.standard_normal(D)).astype(np.float32)
    parts = []
    for start in range(0, tokens, 8192):
        rows = min(8192, tokens - start)
        active = rng.random((rows, 3000), dtype=np.float32) < frequency
        strength = active * (1 + 1.5 * np.abs(rng.standard_normal((rows, 3000), dtype=np.float32)))
        parts.append((strength @ directions + 0.05 * rng.standard_normal((rows, D), dtype=np.float32)) * size)
    return torch.from_numpy(np.concatenate(parts).astype(np.float16).astype(np.float32))


def write_data(folder: Path, tokens: int) -> None:
    """Training states as a tensor and, undivided, as shards of 256-token rollouts; held-out states as a tensor."""
    from resources.components import components
    from resources.shards import SHARD, StateBatch, write_shard

    train, held = make_states(tokens, 0), make_states(HELD_OUT, 1)
    scale = train.std(dim=0).square().mean().sqrt()
    save_file({"train": train / scale, "held": held / scale, "scale": scale}, folder / "data.safetensors")
    columns = tuple(component.id for component in components(D // 7))
    shards = folder / "shards"
    shards.mkdir()
    for number, start in enumerate(range(0, tokens, 32_768)):
        rows = train[start : start + 32_768].numpy().astype(np.float16)
        ids = (np.arange(start, start + len(rows)) // 256).astype(np.int32)
        position = np.arange(len(rows), dtype=np.int32) % 256
        batch = StateBatch(ids, position, position, rows)
        write_shard(shards / SHARD.format(number), batch, columns, "bench", 16_384)


def learning_rates(steps: int, peak: float) -> Iterator[float]:
    """The schedule of every method but those that bring the same one."""
    for step in range(steps):
        yield peak * min(1, (step + 1) / (WARMUP * steps + 1), (steps - step) / (DECAY * steps))


def run_ours(
    folder: Path, batch: int, rate: float, tokens: int, epochs: int, preset: str, device: str
) -> tuple[float, float, dict]:
    """This project's training from shards: wall seconds, CPU seconds, weights and the share of time spent reading."""
    from assets.sae.config import SaeConfig
    from assets.sae.fit import Fit
    from assets.sae.shuffle import Census, Order
    from resources.progress import Progress
    from resources.shards import Shards

    steps = epochs * round(tokens / batch)
    config = SaeConfig(
        preset=preset,  # pyright: ignore[reportArgumentType]
        k=K,
        epochs=epochs,
        batch_tokens=batch,
        learning_rate=rate,
        warmup_steps=round(WARMUP * steps),
        decay_fraction=DECAY,
        input_scale="scalar",
    )
    census = Census.take(Shards.open(folder / "shards"))
    order = Order(census.rows(census.rollouts, np.arange(D)), batch, config.shuffle_tokens, config.seed)
    if device != "cpu":
        few = config.model_copy(update={"epochs": epochs * WARMING_STEPS / steps})
        Fit(few, order, F, device).run(Progress(lambda _: None), "warming")
    fit = Fit(config, order, F, device)
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit.run(Progress(lambda _: None), "step")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    reading = time.process_time()
    for _ in order.batches(0, fit.steps):
        pass
    reading = time.process_time() - reading
    weights = fitted.weights
    # shards hold the states undivided
    ratio = float(fitted.scale.scale_D[0]) / float(load_file(folder / "data.safetensors")["scale"])
    result = {
        "W_enc": weights.W_enc_FD.T / ratio,
        "b_enc": weights.b_enc_F,
        "W_dec": weights.W_dec_FD * ratio,
        "b_dec": weights.b_dec_D * ratio,
        "center": torch.tensor(config.center),
    }
    return wall, cpu, {"weights": result, "reading": reading / cpu}


def run_floor(train: torch.Tensor, _steps: int, _rate: float) -> tuple[Step, Callable[[], dict]]:
    """The encoder's product and nothing else."""
    W_enc, memory = torch.randn(F, D).to(train.device), dict[int, torch.Tensor]()

    def step(x: torch.Tensor, _now: float) -> None:
        rows = len(x)
        if rows not in memory:
            memory[rows] = x.new_empty(rows, F)
        torch.mm(x, W_enc.T, out=memory[rows])

    return step, dict


def batches(train: torch.Tensor, batch: int, epochs: int) -> Iterator[torch.Tensor]:
    """Every token once per epoch, in a random order of its own in each but the first: that one is random already."""
    for epoch in range(epochs):
        yield from train.split(batch)
        if epoch + 1 < epochs:
            train = train[torch.randperm(len(train), device=train.device)]


def measure(method: str, folder: Path, batch: int, rate: float, tokens: int, epochs: int, device: str) -> dict:
    """Train with one method in this process: tokens per second of wall and of CPU time, held-out FVU.

    On a GPU a few steps come before that are not timed: libraries are loaded by the first.
    """
    if method.startswith("ours"):
        preset = "authors" if method.endswith("authors") else "default"
        wall, cpu, found = run_ours(folder, batch, rate, tokens, epochs, preset, device)
    else:
        train = load_file(folder / "data.safetensors")["train"]
        train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))].to(device)
        make = {
            "dictionary_learning": run_dictionary_learning,
            "sae_lens": run_sae_lens,
            "authors": run_authors,
            "floor": run_floor,
        }[method]
        steps = epochs * round(tokens / batch)
        if train.is_cuda:
            warming, _ = make(train, steps, rate)
            for x, now in zip(train.split(batch), [rate] * WARMING_STEPS, strict=False):
                warming(x, now)
            torch.cuda.synchronize()
        step, taken = make(train, steps, rate)
        wall, cpu = time.perf_counter(), time.process_time()
        for x, now in zip(batches(train, batch, epochs), learning_rates(steps, rate), strict=False):
            step(x, now)
        if train.is_cuda:
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        found = {"weights": taken()}
    seen = epochs * tokens
    row = {"method": method, "batch": batch, "tokens_per_s": seen / wall, "tokens_per_cpu_s": seen / cpu}
    if found["weights"]:
        weights = {name: tensor.cpu() for name, tensor in found["weights"].items()}
        row["fvu"] = held_out_fvu(weights, load_file(folder / "data.safetensors")["held"])
    if "reading" in found:
        row["reading_share"] = found["reading"]
    return row | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


@torch.no_grad()
def held_out_fvu(weights: dict, held: torch.Tensor) -> float:
    """Fraction of variance unexplained when exactly K x tokens scores of each 4096 tokens fire."""
    error = 0.0
    for x in held.split(4096):
        encoded = x - weights["b_dec"] if bool(weights["center"]) else x
        latents = (encoded @ weights["W_enc"] + weights["b_enc"]).relu()
        scores = (latents * weights["W_dec"].norm(dim=1)).flatten()
        mask = torch.zeros_like(scores)
        mask[torch.topk(scores, K * len(x), sorted=False).indices] = 1
        error += float((x - (latents * mask.view_as(latents)) @ weights["W_dec"] - weights["b_dec"]).square().sum())
    return error / float((held - held.mean(dim=0)).square().sum())


def middle(turns: list[dict[str, dict]], ratio: Callable[[dict[str, dict]], float]) -> float:
    """The median over turns; a turn holds a row per method."""
    return statistics.median(ratio(turn) for turn in turns)


def show(rows: list[dict]) -> None:
    """A table per batch size, with ratios to the fastest peer (wall, CPU) and to the floor (CPU)."""
    for batch in sorted({row["batch"] for row in rows}):
        chosen = [row for row in rows if row["batch"] == batch]
        names = list(dict.fromkeys(row["method"] for row in chosen))
        each = [[row for row in chosen if row["method"] == name] for name in names]
        turns = [{row["method"]: row for row in turn} for turn in zip(*each, strict=True)]
        peers = [name for name in ("dictionary_learning", "sae_lens", "authors") if name in names]
        print(f"\nbatch {batch}, {len(turns)} turns\n")
        print("| method | tokens/s | tokens/CPU-s | x fastest peer, wall / CPU | of floor, CPU | FVU | peak MB |")
        print("|---|---|---|---|---|---|---|")
        for name in names:
            print(f"| {' | '.join(cells(name, turns, peers))} |")


def cells(name: str, turns: list[dict[str, dict]], peers: list[str]) -> list[str]:
    """One line of the table."""

    def fastest(turn: dict[str, dict], speed: str) -> float:
        return max(turn[peer][speed] for peer in peers)

    speeds = ("tokens_per_s", "tokens_per_cpu_s")
    against = [
        f"{middle(turns, lambda turn, speed=speed: turn[name][speed] / fastest(turn, speed)):.1f}"
        for speed in speeds
        if peers
    ]
    row = turns[0][name]
    floor = "floor" in turns[0]
    return [
        name + (f" (reading {row['reading_share']:.1%})" if "reading_share" in row else ""),
        *(f"{middle(turns, lambda turn, speed=speed: turn[name][speed]):,.0f}" for speed in speeds),
        " / ".join(against),
        f"{middle(turns, lambda turn: turn[name][speeds[1]] / turn['floor'][speeds[1]]):.0%}" if floor else "-",
        f"{row['fvu']:.4f}" if "fvu" in row else "-",
        f"{row['peak_mb']:,.0f}",
    ]


def run_alone(method: str, folder: str, batch: int, options: argparse.Namespace) -> dict:
    """One method in a process of its own."""
    from resources.launcher.command import KEPT_MEMORY, SHORT_SPIN

    python = peer_python() if method in ("dictionary_learning", "sae_lens") else Path(sys.executable)
    command = [str(python), "-W", "ignore", "-m", "bench.sae", "--in-process", method, folder]
    settings = ["--batches", batch, "--tokens", options.tokens, "--rate", options.rate, "--threads", options.threads]
    settings += ["--epochs", options.epochs, "--device", options.device]
    environment = SHORT_SPIN | os.environ | KEPT_MEMORY | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(
        [*command, *map(str, settings)], cwd=PROJECT, env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run every method in a process of its own, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--epochs", type=int, default=1, help="times that every token is seen")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of all methods")
    parser.add_argument("--turns", type=int, default=1, help="of all methods, one after the other")
    parser.add_argument("--device", default="cpu", help="or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--in-process", nargs=2, metavar=("METHOD", "FOLDER"), help="used by the bench itself")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.in_process:
        method, folder = options.in_process
        row = measure(
            method, Path(folder), options.batches[0], options.rate, options.tokens, options.epochs, options.device
        )
        print(json.dumps(row))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), options.tokens)
        for batch, _, method in itertools.product(options.batches, range(options.turns), options.methods):
            rows.append(run_alone(method, folder, batch, options))
            print(rows[-1], file=sys.stderr)
    show(rows)


if __name__ == "__main__":
    main()
