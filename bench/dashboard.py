"""The dashboard at the paper's scale: build, disk, a browser's times. Run twice: python -m bench.dashboard FOLDER

Synthetic: 3584 latents and 896 adapter directions, each with 64 strongest contexts of 97 tokens (and 32 + 32 samples to
thin), 7680 baseline neurons with 8 + 8 + 8, 1000 rollouts of 10,000 tokens of Zipf-distributed words, states of 448
components. `--quick` takes a tenth of units and rollouts.
The first run synthesises into FOLDER (10 GB), the second builds and measures.
"""

import argparse
import gc
import resource
import shutil
import statistics
import sys
import time
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resources.components import components
from resources.shards import SHARD, StateBatch, write_shard
from resources.units import Unit

LATENTS, TOP, SAMPLES, WINDOW, ROLLOUTS, TOKENS, WORDS, LAYERS = 3584, 64, 32, 97, 1000, 10_000, 40_000, 64
NEURONS, NEURON_SAMPLES = 60, 8
"""Baseline neurons per layer, each in both polarities, and contexts of each sample."""
DENSITY = {"latent": 0.08, "adapter": 0.4, "neuron": 0.4}
"""Share of the tokens around a peak on which a unit fires too."""
SAMPLES_OF = {"latent": (TOP, SAMPLES, SAMPLES), "adapter": (TOP, SAMPLES, SAMPLES), "neuron": (NEURON_SAMPLES,) * 3}


def synthesise(folder: Path, scale: float) -> None:
    """Every artifact the dashboard reads, without a model run."""
    from tests.builders import build_random_adapter, build_tiny_qwen2

    random = np.random.default_rng(0)
    rollouts, units = int(ROLLOUTS * scale), all_units(scale)
    words = [f" w{i:x}" for i in range(WORDS)]
    zipf = np.minimum(random.zipf(1.2, (rollouts, TOKENS)), WORDS) - 1
    _dataset(folder / "s1k_dataset", zipf, words)
    _states(folder / "activation_shards", rollouts, random)
    _contexts(folder / "max_activating_contexts", rollouts, units, random)
    _said(folder, units)
    model = build_tiny_qwen2(folder / "model", num_layers=LAYERS)
    build_random_adapter(folder / "lora_checkpoint", model)
    _sae(folder / "batchtopk_sae", int(LATENTS * scale))


def _dataset(folder: Path, zipf: np.ndarray, words: list[str]) -> None:
    folder.mkdir()
    lengths = np.array([len(word) for word in words])
    texts = ["".join(words[i] for i in row) for row in zipf.tolist()]
    count = np.full(len(zipf), TOKENS, np.int32)
    ids = np.arange(len(zipf), dtype=np.int32)
    blank = [""] * len(zipf)
    rollouts = {"rollout_id": ids, "question": blank, "solution": blank, "text": texts, "n_tokens": count}
    pq.write_table(pa.table({**rollouts, "n_cut": 0 * count}), folder / "rollouts.parquet")
    end = np.cumsum(lengths[zipf], axis=1).astype(np.int32)
    start = end - lengths[zipf].astype(np.int32)
    flat = {
        "rollout_id": np.repeat(ids, TOKENS), "position": np.tile(np.arange(TOKENS, dtype=np.int32), len(zipf)),
        "token_id": zipf.astype(np.int32).ravel(), "start": start.ravel(), "end": end.ravel(),
        "role": np.full(zipf.size, 2, np.int8), "loss": np.ones(zipf.size, bool),
    }  # fmt: skip
    pq.write_table(pa.table(flat), folder / "tokens.parquet")


def _states(folder: Path, rollouts: int, random: np.random.Generator) -> None:
    folder.mkdir()
    columns = tuple(component.id for component in components(LAYERS))
    per_shard = 6
    for shard, first in enumerate(range(0, rollouts, per_shard)):
        mine = np.arange(first, min(first + per_shard, rollouts), dtype=np.int32)
        count = len(mine) * TOKENS
        state = random.standard_normal((count, len(columns)), dtype=np.float32).astype(np.float16)
        position = np.tile(np.arange(TOKENS, dtype=np.int32), len(mine))
        batch = StateBatch(np.repeat(mine, TOKENS), position, np.zeros(count, np.int32), state)
        write_shard(folder / SHARD.format(shard), batch, columns, "bench", 8192)


def all_units(scale: float) -> list[Unit]:
    """Directions and neurons in both polarities, and latents, in the order of the contexts room."""
    parts = list(components(LAYERS))[: int(7 * LAYERS * scale)]
    neurons = [(layer, i) for layer in range(LAYERS) for i in range(NEURONS)][: int(LAYERS * NEURONS * scale)]
    return [
        *(Unit("adapter", part.layer, part.projection, -1, sign) for part in parts for sign in (1, -1)),
        *(Unit("neuron", layer, "", i, sign) for layer, i in neurons for sign in (1, -1)),
        *(Unit("latent", -1, "", i, 1) for i in range(int(LATENTS * scale))),
    ]


def _contexts(folder: Path, rollouts: int, units: list[Unit], random: np.random.Generator) -> None:
    from assets.contexts.artifact import CONTEXTS, CONTEXTS_FILE, UNITS, UNITS_FILE

    folder.mkdir()
    count = len(units)
    n_fired = (random.random(count) * 1e5 + 100).astype(np.int64)
    columns = {
        "unit": [unit.id for unit in units], "kind": [unit.kind for unit in units],
        "layer": [unit.layer for unit in units], "projection": [unit.projection for unit in units],
        "index": [unit.index for unit in units], "polarity": [unit.polarity for unit in units],
        "threshold": np.zeros(count), "n_tokens": np.full(count, rollouts * TOKENS), "n_fired": n_fired,
        "density": n_fired / (rollouts * TOKENS), "sum": n_fired.astype(float), "max": np.full(count, 4.0),
        "histogram": [list(range(20))] * count,
    }  # fmt: skip
    pq.write_table(
        pa.table({k: pa.array(v).cast(UNITS.field(k).type) for k, v in columns.items()}, UNITS), folder / UNITS_FILE
    )
    with pq.ParquetWriter(folder / CONTEXTS_FILE, CONTEXTS, compression="zstd") as writer:
        for first in range(0, count, 256):
            for kind, mine in groupby(units[first : first + 256], key=lambda unit: unit.kind):
                writer.write_table(_rows([unit.id for unit in mine], kind, rollouts, random))


def _rows(names: list[str], kind: str, rollouts: int, random: np.random.Generator) -> pa.Table:
    """The contexts of some units of a kind."""
    from assets.contexts.artifact import CONTEXTS

    counts = SAMPLES_OF[kind]
    per = sum(counts)
    rows = len(names) * per
    start = random.integers(0, TOKENS - WINDOW, rows).astype(np.int32)
    values = np.where(random.random((rows, WINDOW)) < DENSITY[kind], random.random((rows, WINDOW)) * 3, 0)
    values[:, WINDOW // 2] = 4.0
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * WINDOW)
    sample = [name for name, n in zip(("top", "quantile", "silent"), counts, strict=True) for _ in range(n)]
    columns = {
        "unit": np.repeat(names, per), "sample": sample * len(names),
        "rank": np.tile(np.concatenate([np.arange(n) for n in counts]), len(names)),
        "rollout_id": random.integers(0, rollouts, rows), "position": start + WINDOW // 2,
        "value": np.tile(np.sort(random.random(per) * 4)[::-1], len(names)), "start": start,
        "token_ids": pa.ListArray.from_arrays(offsets, pa.array(np.zeros(rows * WINDOW, np.int32))),
        "values": pa.ListArray.from_arrays(offsets, pa.array(values.astype(np.float32).ravel())),
    }  # fmt: skip
    arrays = {k: pa.array(v) if not isinstance(v, pa.Array) else v for k, v in columns.items()}
    return pa.table({k: v.cast(CONTEXTS.field(k).type) for k, v in arrays.items()}, CONTEXTS)


def _said(folder: Path, units: list[Unit]) -> None:
    from assets.interpretations.artifact import INTERPRETATIONS_SCHEMA, SCORES_SCHEMA

    base = [{"unit": unit.id, "kind": unit.kind} for unit in units]
    text = "fires on words that open a step of a calculation, number"
    ok = {"explainer": "bench", "status": "ok", "reasoning": "because of what stands around it " * 3}
    said = [{**row, **ok, "explanation": f"{text} {i}", "label": i % 3} for i, row in enumerate(base)]
    scores = [{**row, "method": "detection", "balanced_accuracy": 0.5 + i % 50 / 100} for i, row in enumerate(base)]
    filed = [{**row, "category": f"category {i % 8}", "subcategory": f"entry {i % 30}"} for i, row in enumerate(base)]
    for name, file, table in (
        ("interpretations", "interpretations.parquet", pa.Table.from_pylist(said, schema=INTERPRETATIONS_SCHEMA)),
        ("interpretation_scores", "scores.parquet", pa.Table.from_pylist(scores, schema=SCORES_SCHEMA)),
        ("feature_categories", "categories.parquet", pa.Table.from_pylist(filed)),
    ):
        (folder / name).mkdir()
        pq.write_table(table, folder / name / file)


def _sae(folder: Path, latents: int) -> None:
    import torch

    from assets.sae.artifact import Sae, write_sae

    columns = tuple(component.id for component in components(LAYERS))
    weights = torch.randn(len(columns), latents, generator=torch.Generator().manual_seed(0)) / len(columns) ** 0.5
    threshold = torch.full((latents,), 2.05)  # 2 % of a standard normal lies above
    width = torch.zeros(len(columns))
    folder.mkdir()
    write_sae(
        folder,
        Sae(folder, columns, 64, 2.05, weights, torch.zeros(latents), weights.T.contiguous(), width, threshold),
        {},
    )


def build(folder: Path) -> None:
    """Build the site, and print time, memory and disk."""
    from assets.dashboard.artifact import FEATURES
    from assets.dashboard.build import build as build_site
    from assets.dashboard.config import DashboardConfig
    from resources.models import ModelConfig
    from resources.progress import Progress

    names = ("s1k_dataset", "lora_checkpoint", "activation_shards", "batchtopk_sae", "max_activating_contexts",
             "interpretations", "interpretation_scores", "feature_categories")  # fmt: skip
    shutil.rmtree(folder / "site", ignore_errors=True)
    (folder / "site").mkdir()
    start = time.perf_counter()
    metrics = build_site(
        model=ModelConfig(name=str(folder / "model"), dtype="float32"), dashboard=DashboardConfig(),
        neuron_shards=folder / "activation_shards", out=folder / "site",
        progress=Progress(lambda line: print(f"  {time.perf_counter() - start:6.1f} s  {line}")),
        **{name: folder / name for name in names},
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    size = sum(path.stat().st_size for path in (folder / "site").rglob("*") if path.is_file())
    wall, cpu = time.perf_counter() - start, time.process_time()
    print(f"build: {wall:.1f} s, cpu {cpu:.1f} s, peak {peak:.2f} GB, site {size / 1e6:.1f} MB")
    print(f"  {metrics.contexts} contexts of {metrics.units} units, {metrics.rollouts} rollouts")
    for kind in ("pieces", "units", "full", "rollouts", "index"):
        print(f"  {kind}: {sum(p.stat().st_size for p in (folder / 'site' / 'data').glob(f'{kind}*')) / 1e6:.1f} MB")
    kinds = pq.read_table(folder / "site" / FEATURES)["kind"].to_pylist()
    for kind in dict.fromkeys(kinds):
        chunks = {row // DashboardConfig().units_per_chunk for row, found in enumerate(kinds) if found == kind}
        sizes = [sum(_chunk(folder, name, n) for n in chunks) / 1e6 for name in ("units", "full")]
        print(f"  {kind}: contexts {sizes[0]:.1f} MB, full rollouts {sizes[1]:.1f} MB")


def _chunk(folder: Path, name: str, number: int) -> int:
    return (folder / "site" / "data" / f"{name}-{number:04d}.js").stat().st_size


def browse(folder: Path) -> None:
    """Times of a headless Chromium on file://."""
    from tests.end_to_end.browser import open_browser

    address = (folder / "site" / "index.html").as_uri()
    with open_browser() as browser:
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.add_init_script(BOOT)
        boots = []
        for _ in range(5):
            page.goto("about:blank")
            page.goto(address)
            page.wait_for_function("window.bootedAt !== undefined")
            boots.append(page.evaluate("window.bootedAt"))
        page.wait_for_selector("#unit h2")
        page.wait_for_selector("#rollout p.text")
        shown = page.evaluate("lorascope.list.shown().length")
        switches = [page.evaluate(SWITCH, 1 + i * (shown // 21)) for i in range(20)]
        page.select_option("[name=kind]", "latent")
        page.evaluate("lorascope.go({ unit: lorascope.list.shown()[0] })")
        page.locator(".context[data-sample=top]").nth(TOP - 1).wait_for(state="attached")
        page.wait_for_selector("#rollout p.text")
        rollouts = [page.evaluate(ROLLOUT, 1 + i) for i in range(10)]
        page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
    print(f"boot (list is there): median {statistics.median(boots):.0f} ms, worst {max(boots):.0f}")
    print(
        f"switch to a unit of an unread chunk: median {statistics.median(switches):.0f} ms, worst {max(switches):.0f}"
    )
    print(f"full rollout of {TOKENS} tokens: median {statistics.median(rollouts):.0f} ms, worst {max(rollouts):.0f}")
    print(f"heap after all of that: {heap:.1f} MB")


BOOT = """new MutationObserver((_, watcher) => {
  if (!document.querySelector("#rows .row")) return;
  watcher.disconnect();
  requestAnimationFrame(() => { window.bootedAt = performance.now(); });
}).observe(document, { childList: true, subtree: true });"""
_WATCH = """const start = performance.now();
  const shown = () => requestAnimationFrame(() => done(performance.now() - start));
  const watcher = new MutationObserver(() => { watcher.disconnect(); shown(); });"""
SWITCH = f"""row => new Promise(done => {{ {_WATCH}
  watcher.observe(document.getElementById("unit"), {{ childList: true }});
  lorascope.go({{ unit: lorascope.list.shown()[row] }});
}})"""
ROLLOUT = f"""i => new Promise(done => {{ {_WATCH}
  watcher.observe(document.getElementById("rollout"), {{ childList: true }});
  const {{ rollout, position }} = document.querySelectorAll(".context")[i * 3].dataset;
  lorascope.go({{ unit: document.querySelector("#rows .chosen").dataset.unit, rollout, token: position }});
}})"""


def main() -> None:
    """Synthesise once, build, browse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["build", "browse"])
    options = parser.parse_args()
    if not options.folder.exists():
        options.folder.mkdir(parents=True)
        synthesise(options.folder, 0.1 if options.quick else 1.0)
        gc.collect()
        sys.exit("synthesised; run again to build and measure in a fresh process")
    if options.only != "browse":
        build(options.folder)
    if options.only != "build":
        browse(options.folder)


if __name__ == "__main__":
    main()
