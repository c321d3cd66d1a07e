"""Contexts beside their peers in one run: nice -n 10 python -m bench.contexts

1. Merge: tokens/s at which `Tally` takes the active latents of a paper-sized SAE (3584 latents, 16 active), on one
   core, beside an exact heap per latent and token (what a per-token loop can do) and, for scale, a bare bincount.
2. End to end: shards -> SAE encoding -> finished latents' contexts, beside the encoder's matmul alone.
3. Peak memory of the first reading for 1 to 20 million tokens (3584 latents, shards reused by name).
CPU seconds of the main thread are counted, not wall time, since the machine is shared (the thread that decompresses the
next shard is left out, and takes 8 % of the matmul); `-m bench.contexts merge` runs one, `end_to_end 1048576` part 2
on so many tokens.
"""

import heapq
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from assets.contexts.config import ContextsConfig
from assets.contexts.tally import Events, Tally, priorities, tokens_of
from bench.kept_memory import restart_with_kept_memory

LATENTS, ACTIVE, COLUMNS, BLOCK = 3584, 16, 448, 4096
ROLLOUT = 10_000


def stream(tokens: int, seed: int = 0) -> tuple[Events, np.ndarray]:
    """Active latents of some tokens: Zipf-like densities, gamma activations, one latent at most once a token."""
    rng = np.random.default_rng(seed)
    weights = 1 / (np.arange(LATENTS) + 20)
    first = rng.choice(LATENTS, tokens, p=weights / weights.sum())
    unit_N = np.sort((first[:, None] * 7 + np.arange(ACTIVE) * 211) % LATENTS, axis=1).ravel()
    value_N = rng.gamma(2.0, 1.0, tokens * ACTIVE).astype(np.float32)
    return Events(np.repeat(np.arange(tokens), ACTIVE), unit_N, value_N), np.arange(tokens)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of one call, in this thread."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def blocks(events: Events, tokens: int) -> list[Events]:
    """As the encoder hands them over."""
    parts = []
    for first in range(0, tokens, BLOCK):
        part = slice(first * ACTIVE, (first + BLOCK) * ACTIVE)
        parts.append(Events(events.row_N[part] - first, events.unit_N[part], events.value_N[part]))
    return parts


def ours(tokens: int) -> tuple[float, float]:
    """CPU seconds of the first tenth and of all of a stream; what makes the stream is not counted."""
    tally, step, spent = Tally(LATENTS, ContextsConfig()), tokens // 10, []
    for tenth in range(10):
        events, row_R = stream(step, seed=tenth)
        row_R = row_R + tenth * step
        token_R = tokens_of(row_R // ROLLOUT, row_R % ROLLOUT)
        parts = blocks(events, step)
        spent.append(cpu(lambda parts=parts, token_R=token_R: add(tally, parts, token_R)))
    spent.append(cpu(lambda: (tally.top.best(), tally.sample.best())))
    return spent[0], sum(spent)


def add(tally: Tally, parts: list[Events], token_R: np.ndarray) -> None:
    """Take in consecutive blocks."""
    for number, part in enumerate(parts):
        token_B = token_R[number * BLOCK : (number + 1) * BLOCK]
        tally.add(part, token_B, priorities(token_B, 0, 0))


def heaps(events: Events, k: int = 64) -> list[list[tuple[float, int]]]:
    """Exact top k by one heap per latent, event by event."""
    kept: list[list[tuple[float, int]]] = [[] for _ in range(LATENTS)]
    rows = zip(events.unit_N.tolist(), events.value_N.tolist(), events.row_N.tolist(), strict=True)
    for unit, value, row in rows:
        heap = kept[unit]
        if len(heap) < k:
            heapq.heappush(heap, (value, -row))
        elif (value, -row) > heap[0]:
            heapq.heapreplace(heap, (value, -row))
    return kept


def merge(tokens: int = 10_000_000) -> None:
    """Part 1."""
    few = 50_000
    events, _ = stream(few)
    parts = blocks(events, few)
    heaps_s = cpu(lambda: heaps(events))
    count_s = cpu(lambda: [np.bincount(part.unit_N, minlength=LATENTS) for part in parts * 10]) / 10
    first_s, all_s = ours(tokens)
    rate = tokens / all_s
    print(f"merge, {LATENTS} latents, {ACTIVE} active, {tokens} tokens: {rate / 1e6:.2f} M tokens/s of CPU")
    print(f"  the first tenth, while the bars rise: {tokens / 10 / first_s / 1e6:.2f} M tokens/s")
    print(f"  heap per latent: {few / heaps_s / 1e6:.3f} M tokens/s, ours is {rate / (few / heaps_s):.0f} x")
    print(f"  bincount of the same latents alone: {few / count_s / 1e6:.1f} M tokens/s")


def build(folder: Path, tokens: int) -> None:
    """Shards of the paper's width, and a random SAE with about 16 active latents a token."""
    import torch

    from assets.sae.artifact import Sae, write_sae
    from resources.components import components
    from resources.shards import SHARD, StateBatch, write_shard

    columns = tuple(component.id for component in components(64))
    rng = np.random.default_rng(0)
    (folder / "states").mkdir()
    for shard in range(0, tokens, 65_536):
        count = min(65_536, tokens - shard)
        row_R = np.arange(shard, shard + count)
        state = rng.standard_normal((count, COLUMNS), dtype=np.float32).astype(np.float16)
        batch = StateBatch(row_R // 8192, row_R % 8192, row_R % 50_000, state)
        write_shard(folder / "states" / SHARD.format(shard // 65_536), batch, columns, "bench", 8192)
    W = torch.randn(COLUMNS, LATENTS, generator=torch.Generator().manual_seed(0)) / COLUMNS**0.5
    limit = torch.full((LATENTS,), 2.61)  # 0.45 % of a standard normal: 16 of 3584
    (folder / "sae").mkdir()
    zero = torch.zeros
    sae = Sae(folder, columns, ACTIVE, 1.0, W, zero(LATENTS), zero(LATENTS, COLUMNS), zero(COLUMNS), limit)
    write_sae(folder / "sae", sae, {})


def end_to_end(tokens: int = 262_144) -> None:
    """Part 2: both readings of one sweep of latents, between two runs of the bare product."""
    import torch

    from assets.contexts.requests import Requests, choose
    from assets.contexts.sources import Latents
    from assets.contexts.sweep import Sweep
    from assets.sae.artifact import Sae
    from resources.onednn import linear
    from resources.shards import Shards

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, tokens)
        sae, shards = Sae.open(folder / "sae"), Shards.open(folder / "states")
        state = torch.from_numpy(shards.read_shard(0).state_BC[:BLOCK]).float()

        def bare() -> None:
            for _ in range(tokens // BLOCK):
                torch.addmm(sae.b_enc_F, state, sae.W_enc_DF)

        def bare_onednn() -> None:
            for _ in range(tokens // BLOCK):
                linear(state, sae.W_enc_DF.T, sae.b_enc_F)

        scratch = folder / "scratch"
        scratch.mkdir()
        sweep = Sweep(shards, {"latent": Latents(sae, scratch, "bench")}, ContextsConfig(), scratch, "bench")
        vars(sweep)["spans"] = [range(len(shards.paths))]  # one span, about as long as one of the paper's 16
        spans = range(len(sweep.spans))
        chosen: list[Requests] = []

        def first() -> None:
            for span in spans:
                sweep.tally(span)

        def between() -> None:
            chosen.append(choose(*sweep.merged("latent")))

        def second() -> None:
            for span in spans:
                sweep.read(span, {"latent": chosen[0]}, {"latent": np.ones(LATENTS, np.float32)})

        with torch.inference_mode():
            products = (bare, bare_onednn)
            before = [cpu(product) for product in products]
            first_s, choose_s, second_s = map(cpu, (first, between, second))
            after = [cpu(product) for product in products]
    all_s = first_s + choose_s + second_s
    contexts = len(chosen[0].unit_n)
    print(f"end to end, {tokens} tokens, {contexts} contexts: {tokens / all_s:.0f} tokens/s of CPU")
    for name, one_s, other_s in zip(("torch", "oneDNN"), before, after, strict=True):
        bare_s = (one_s + other_s) / 2
        print(
            f"  of the bare encoder matmul by {name}, {tokens / bare_s:.0f} tokens/s: "
            f"reading one (encode, tally) {bare_s / first_s:.2f}, all of it {bare_s / all_s:.2f}"
        )
    print(f"  choosing, {choose_s:.1f} s whatever the tokens; windows, {1e6 * second_s / contexts:.0f} us a context")


def memory(tokens: int) -> None:
    """Part 3, in a process of its own: peak memory after tallying `tokens` tokens of one million, again and again."""
    events, row_R = stream(100_000)
    parts = blocks(events, 100_000)
    tally = Tally(LATENTS, ContextsConfig())
    for start in range(0, tokens, 100_000):
        add(tally, parts, tokens_of((row_R + start) // ROLLOUT, (row_R + start) % ROLLOUT))
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Run the parts named on the command line, or all."""
    parts = sys.argv[1:] or ["merge", "end_to_end", "memory"]
    if len(parts) == 2 and parts[1].isdecimal():
        {"memory": memory, "end_to_end": end_to_end}[parts[0]](int(parts[1]))
        return
    if "merge" in parts:
        merge()
    if "end_to_end" in parts:
        end_to_end()
    if "memory" in parts:
        for millions in (1, 5, 20):
            command = [sys.executable, "-m", "bench.contexts", "memory", str(millions * 1_000_000)]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"peak memory, {millions} M tokens: {float(found.stdout):.0f} MB")


if __name__ == "__main__":
    restart_with_kept_memory()
    main()
