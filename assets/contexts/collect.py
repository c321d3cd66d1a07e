"""Collect the contexts of every unit. Run by a worker, alone or as one of several torchrun processes.

Shapes: n contexts, W tokens of a window, U units.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from assets.contexts.artifact import CONTEXTS, CONTEXTS_FILE, NUM_BINS, SAMPLES, UNITS, UNITS_FILE
from assets.contexts.config import ContextsConfig
from assets.contexts.ranking import ROLLOUT_SHIFT
from assets.contexts.requests import Requests, choose
from assets.contexts.sources import Columns, Latents, Source
from assets.contexts.sweep import Sweep
from assets.contexts.tally import Tally, load_arrays, save_arrays
from assets.dataset.artifact import S1kDataset
from assets.sae.artifact import CONFIG_FILE, WEIGHTS_FILE, Sae
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.keys import digest, file_digest
from resources.progress import Progress
from resources.ranks import Rank, wait_for
from resources.shards import Shards

_ROWS_WRITTEN = 8192
_POSITION = (1 << ROLLOUT_SHIFT) - 1


class ContextsMetrics(BaseModel, frozen=True):
    """What was collected."""

    tokens: int
    units: int
    contexts: int
    silent_units: int
    """Units that never fire."""
    kinds: list[dict[str, float | str]]
    """Per kind of unit: how many, how many never fire, median density, contexts."""


def collect(
    *,
    contexts: ContextsConfig,
    s1k_dataset: Path,
    activation_shards: Path,
    neuron_shards: Path,
    batchtopk_sae: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> ContextsMetrics | None:
    """Contexts of every adapter direction, neuron and latent (paper section 4); None from processes other than 0.

    Raises:
        BadInput: when shards and SAE, or shards and dataset, do not belong together.
    """
    rank = Rank.here()
    sae = Sae.open(batchtopk_sae, device=rank.device(compute.device))
    states, neurons = Shards.open(activation_shards), Shards.open(neuron_shards)
    _check(states, neurons, sae, S1kDataset.open(s1k_dataset))
    weights = [file_digest(batchtopk_sae / name) for name in (WEIGHTS_FILE, CONFIG_FILE)]
    tag = digest("contexts", [contexts.model_dump(mode="json"), states.fingerprint, neurons.fingerprint, weights])
    adapter = Columns.open(activation_shards, states.columns, contexts.firing_fraction)
    baseline = Columns.open(neuron_shards, neurons.columns, contexts.firing_fraction)
    latents = Latents(sae, scratch, digest("latents", [states.fingerprint, weights]))
    sweeps = (
        Sweep(states, {"adapter": adapter, "latent": latents}, contexts, scratch, tag),
        Sweep(neurons, {"neuron": baseline}, contexts, scratch, tag),
    )
    for sweep in sweeps:
        _tally_and_read(sweep, rank, progress)
    if rank.index:
        return None
    return _write([(sweeps[0], "adapter"), (sweeps[1], "neuron"), (sweeps[0], "latent")], out)


def _check(states: Shards, neurons: Shards, sae: Sae, dataset: S1kDataset) -> None:
    if sae.columns != states.columns:
        raise BadInput("the SAE was trained on other components than the activation shards hold: train it again")
    for name, shards in (("activation", states), ("neuron", neurons)):
        last = shards.groups[-1].last_rollout
        if last not in dataset.lengths:
            raise BadInput(f"rollout {last} of the {name} shards is not in the dataset: capture the activations again")


def _tally_and_read(sweep: Sweep, rank: Rank, progress: Progress) -> None:
    """Both readings of this process's spans, with process 0 choosing the contexts between them."""
    mine = rank.share(len(sweep.spans))
    what = " and ".join(sweep.sources)
    found = 0
    for done, span in enumerate(mine, start=1):
        found += not sweep.tally(span)
        progress.step(f"{what}: spans tallied", done, len(mine), found=found)
    if rank.index == 0:
        spans = range(len(sweep.spans))
        wait_for(path for name in sweep.sources for span in spans for path in sweep.tallied(name, span))
        for name in sweep.sources:
            _choose(sweep, name)
    wait_for(_chosen(sweep, name) for name in sweep.sources)
    loaded = {name: load_arrays(_chosen(sweep, name)) for name in sweep.sources}
    max_U = {name: arrays["max"] for name, arrays in loaded.items()}
    requests = {name: Requests.of(arrays) for name, arrays in loaded.items()}
    found = 0
    for done, span in enumerate(mine, start=1):
        found += not sweep.read(span, requests, max_U)
        progress.step(f"{what}: spans read", done, len(mine), found=found)
    if rank.index == 0:
        wait_for(sweep.file("windows", name, span) for name in sweep.sources for span in range(len(sweep.spans)))


def _chosen(sweep: Sweep, name: str) -> Path:
    return sweep.scratch / f"requests-{sweep.tag}-{name}.npz"


def _choose(sweep: Sweep, name: str) -> None:
    """Merge the tallies and write down which contexts are wanted, with the numbers of the units table."""
    if _chosen(sweep, name).exists():
        return
    tally, loudness = sweep.merged(name)
    numbers = {"n_tokens": np.array(tally.num_tokens), "n_fired": tally.count_U, "sum": tally.sum_U}
    save_arrays(_chosen(sweep, name), {**vars(choose(tally, loudness)), "max": _max(tally), **numbers})


def _max(tally: Tally) -> np.ndarray:
    """float32[U]: the first of each unit's strongest contexts, 0 for units that never fire."""
    top = tally.top.best()
    first = np.flatnonzero(top.place() == 0)
    max_U = np.zeros(tally.num_units, np.float32)
    max_U[top.unit_N[first]] = top.score_N[first]
    return max_U


def _write(parts: list[tuple[Sweep, str]], out: Path) -> ContextsMetrics:
    """Join the spans into the two files of the artifact, in the order of `parts`."""
    tables, kinds, count = [], [], 0
    with pq.ParquetWriter(
        out / CONTEXTS_FILE,
        CONTEXTS,
        compression="zstd",
        use_dictionary=["unit", "sample", "rollout_id", "token_ids.list.element"],  # pyright: ignore[reportArgumentType]
    ) as writer:
        for sweep, name in parts:
            chosen = load_arrays(_chosen(sweep, name))
            source = sweep.sources[name]
            histogram = _write_contexts(sweep, name, chosen, writer)
            tables.append(_units(source, chosen, histogram))
            count += len(chosen["unit_n"])
            kinds.append(_summary(name, tables[-1], len(chosen["unit_n"])))
    units = pa.concat_tables(tables)
    pq.write_table(units, out / UNITS_FILE, compression="zstd")
    silent = int((units["n_fired"].to_numpy() == 0).sum())
    tokens = max(units["n_tokens"].to_pylist())
    return ContextsMetrics(tokens=tokens, units=len(units), contexts=count, silent_units=silent, kinds=kinds)


def _summary(kind: str, units: pa.Table, contexts: int) -> dict[str, float | str]:
    density = units["density"].to_numpy()
    return {
        "kind": kind,
        "units": len(density),
        "never fire": int((density == 0).sum()),
        "median density": float(np.median(density)),
        "contexts": contexts,
    }


def _units(source: Source, chosen: dict[str, np.ndarray], histogram: np.ndarray) -> pa.Table:
    units = source.units
    columns = {
        "unit": [unit.id for unit in units],
        "kind": [unit.kind for unit in units],
        "layer": [unit.layer for unit in units],
        "projection": [unit.projection for unit in units],
        "index": [unit.index for unit in units],
        "polarity": [unit.polarity for unit in units],
        "threshold": source.threshold_U,
        "n_tokens": np.full(len(units), chosen["n_tokens"], np.int64),
        "n_fired": chosen["n_fired"],
        "density": chosen["n_fired"] / int(chosen["n_tokens"]),
        "sum": chosen["sum"],
        "max": chosen["max"],
        "histogram": pa.FixedSizeListArray.from_arrays(pa.array(histogram), NUM_BINS),
    }
    return pa.table(columns).cast(UNITS)


def _write_contexts(sweep: Sweep, name: str, chosen: dict[str, np.ndarray], writer: pq.ParquetWriter) -> np.ndarray:
    """Write one source's contexts by unit; returns its histograms, flat.

    The windows of all spans are laid out by context in files, so that memory stays bounded by the page cache.
    """
    count, width = len(chosen["unit_n"]), 2 * sweep.config.window + 1
    token_ids_nW = _scratch_array(sweep, f"tokens-{name}", np.int32, (count, width))
    values_nW = _scratch_array(sweep, f"values-{name}", np.float32, (count, width))
    start_n, length_n = np.empty(count, np.int32), np.empty(count, np.int64)
    histogram = np.zeros(len(sweep.sources[name].units) * NUM_BINS, np.int64)
    for span in range(len(sweep.spans)):
        part = load_arrays(sweep.file("windows", name, span))
        index = part["index"]
        token_ids_nW[index], values_nW[index] = part["token_ids"], part["values"]
        start_n[index], length_n[index] = part["start"], part["length"]
        histogram += part["counts"]
    names = pa.array([unit.id for unit in sweep.sources[name].units])
    for first in range(0, count, _ROWS_WRITTEN):
        rows = slice(first, first + _ROWS_WRITTEN)
        inside = np.arange(width) < length_n[rows, None]
        offsets = pa.array(np.concatenate([[0], np.cumsum(length_n[rows])]).astype(np.int32))
        columns = [
            names.take(pa.array(chosen["unit_n"][rows])),
            pa.array(SAMPLES).take(pa.array(chosen["sample_n"][rows])),
            pa.array(chosen["rank_n"][rows], pa.int32()),
            pa.array((chosen["token_n"][rows] >> ROLLOUT_SHIFT).astype(np.int32)),
            pa.array((chosen["token_n"][rows] & _POSITION).astype(np.int32)),
            pa.array(chosen["value_n"][rows]),
            pa.array(start_n[rows]),
            pa.ListArray.from_arrays(offsets, pa.array(token_ids_nW[rows][inside])),
            pa.ListArray.from_arrays(offsets, pa.array(values_nW[rows][inside])),
        ]
        writer.write_batch(pa.record_batch(columns, schema=CONTEXTS))
    return histogram


def _scratch_array(sweep: Sweep, name: str, dtype: type, shape: tuple[int, int]) -> np.ndarray:
    path = sweep.scratch / f"{name}-{sweep.tag}.npy"
    return np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape) if shape[0] else np.empty(shape, dtype)
