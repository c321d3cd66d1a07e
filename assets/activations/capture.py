"""The two captures: adapter scalars and baseline neurons of every token, at the speed of the forward pass.

Run by a worker, alone or as one of several torchrun processes, each with its own shards.
Shapes: T tokens of a packed batch, C columns, R rows of a shard.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from assets.activations.artifact import STATISTICS_FILE
from assets.activations.config import ActivationsConfig, NeuronsConfig
from assets.activations.plan import Plan, ShardPlan, plan_shards
from assets.activations.probe import Probe, adapter_probe, neuron_probe
from assets.activations.shelf import Shelf
from assets.activations.statistics import count_values, summarise
from assets.dataset.artifact import TOKENS, S1kDataset
from resources.adapters import CONFIG, WEIGHTS
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.fingerprints import fingerprints
from resources.keys import digest, file_digest
from resources.models import ModelConfig, load_adapted, load_base
from resources.packing import batches_by_length, forward_kwargs, pack
from resources.progress import Progress
from resources.ranks import Rank, wait_for
from resources.shards import SHARDS, Shards, StateBatch
from resources.whole import whole

if TYPE_CHECKING:
    import torch

_NOT_FINITE = 0xF800
"""A float16's bits without its sign, moved to the left: from here on its exponent is all ones."""


class CaptureMetrics(BaseModel, frozen=True):
    """What a capture measured."""

    tokens: int
    rollouts: int
    columns: int
    shards: int
    bytes_per_token: float
    """On disk; float16 uncompressed is 2 x columns + 12."""
    rollouts_cut: int
    """Rollouts longer than the model's context."""
    tokens_cut: int
    shards_reused: int
    """This process's shards found finished by an earlier attempt."""
    tokens_per_second: float
    """This process's, hooks and writing included, loading and statistics not."""
    writer_wait_share: float
    """Share of that time in which the forward pass waited for the writer."""


def capture_states(
    *,
    model: ModelConfig,
    activations: ActivationsConfig,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> CaptureMetrics:
    """A·x of every component at every token, from PEFT's own forward pass (paper section 3).

    Raises:
        BadInput: when the adapter is not of rank 1 or does not fit, a scalar is NaN or too large for float16, or the
            disk is full.
    """
    adapter = {name: file_digest(lora_checkpoint / name) for name in (CONFIG, WEIGHTS)}
    return _capture(
        load_probe=lambda device: adapter_probe(load_adapted(model, lora_checkpoint, device)),
        source=[adapter, model.model_dump(mode="json"), fingerprints(model.sources())],
        layout=activations,
        dataset=s1k_dataset,
        out=out,
        scratch=scratch,
        progress=progress,
        compute=compute,
    )


def capture_neurons(
    *,
    model: ModelConfig,
    neurons: NeuronsConfig,
    s1k_dataset: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> CaptureMetrics:
    """The first neurons of each MLP of the base model without adapter (paper section 4).

    Raises:
        BadInput: when an MLP has fewer neurons, a value is NaN or too large for float16, or the disk is full.
    """
    return _capture(
        load_probe=lambda device: neuron_probe(load_base(model, device), neurons.per_layer, neurons.activation),
        source=["base", model.model_dump(mode="json"), fingerprints(model.sources())],
        layout=neurons,
        dataset=s1k_dataset,
        out=out,
        scratch=scratch,
        progress=progress,
        compute=compute,
    )


def _capture(
    *,
    load_probe: Callable[[str], Probe],
    source: list[object],
    layout: ActivationsConfig | NeuronsConfig,
    dataset: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> CaptureMetrics:
    """What both captures share; `source` is what the scalars depend on besides dataset and layout."""
    import torch

    from resources.attention import use_varlen_attention

    rank = Rank.here()
    probe = load_probe(rank.device(compute.device))
    use_varlen_attention(probe.backbone)
    config = probe.backbone.config
    plan = plan_shards(S1kDataset.open(dataset), layout.positions, layout.shard_rows, config.max_position_embeddings)
    made_from = [source, file_digest(dataset / TOKENS), layout.model_dump(mode="json")]
    shelf = Shelf(scratch, probe.columns, digest("activations", made_from), layout)
    with torch.inference_mode():
        run = _run(probe, plan, shelf, rank, progress, compute)
    _count_mine(plan, shelf, rank)
    if rank.index == 0:
        _finish(plan, shelf, rank, out)
    return _metrics(plan, shelf, run, out)


@dataclass(frozen=True)
class _Run:
    reused: int
    tokens: int
    seconds: float


def _run(probe: Probe, plan: Plan, shelf: Shelf, rank: Rank, progress: Progress, compute: ComputeConfig) -> _Run:
    """Compute this process's missing shards."""
    mine = rank.share(len(plan.shards))
    missing = [plan.shards[index] for index in mine if not _finished(shelf, index, progress)]
    total = sum(shard.num_rows for shard in missing)
    done, began = 0, time.perf_counter()
    with probe.attached(), shelf.writing() as put:
        for shard in missing:
            states_RC = forward_shard(probe, shard, rank.device(compute.device), compute.tokens_per_batch)
            put(shard.index, lambda shard=shard, states_RC=states_RC: to_rows(shard, states_RC, probe.columns))
            done += shard.num_rows
            progress.step("tokens captured", done, total)
    return _Run(len(mine) - len(missing), total, time.perf_counter() - began)


def _finished(shelf: Shelf, index: int, progress: Progress) -> bool:
    found = shelf.fingerprint_of(index)
    if found is not None and found != shelf.fingerprint:
        progress.say(
            f"{shelf.path(index).name} of an earlier attempt is computed again: "
            "it is from another adapter, model, dataset or layout"
        )
    return found == shelf.fingerprint


def forward_shard(probe: Probe, shard: ShardPlan, device: str, tokens_per_batch: int) -> "torch.Tensor":
    """Scalars of one shard's rows, float16 [R, C] on the device; nothing leaves it before the shard is full."""
    import torch

    states_RC = torch.empty((shard.num_rows, len(probe.columns)), dtype=torch.float16, device=device)
    for batch in batches_by_length([len(reading.token_ids) for reading in shard.readings], tokens_per_batch):
        packed = pack([shard.readings[i].token_ids for i in batch])
        probe.backbone(**forward_kwargs(packed, device))
        rows_K, kept_K = _rows_of(shard, batch, packed.cu_seqlens)
        states_RC[torch.from_numpy(rows_K).to(device)] = probe.take()[torch.from_numpy(kept_K).to(device)].half()
    return states_RC


def _rows_of(shard: ShardPlan, batch: list[int], starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each kept token of a packed batch: its row in the shard, and where it stands in the batch."""
    kept = [shard.readings[i].kept for i in batch]
    rows = [shard.first_rows[i] + np.arange(len(positions)) for i, positions in zip(batch, kept, strict=True)]
    places = [start + positions for start, positions in zip(starts[:-1], kept, strict=True)]
    return np.concatenate(rows), np.concatenate(places).astype(np.int64)


def to_rows(shard: ShardPlan, states_RC: "torch.Tensor", columns: tuple[str, ...]) -> StateBatch:
    """The shard's rows on the CPU.

    Raises:
        BadInput: when a scalar is NaN or infinite, naming component, rollout and position.
    """
    rollouts, positions, tokens = shard.ids()
    states = states_RC.cpu().numpy()
    # A float16 whose exponent is all ones is NaN or infinite: a ninth of the time of asking numpy for magnitudes.
    if (states.view(np.uint16) << 1).max() >= _NOT_FINITE:
        row, column = np.argwhere(~np.isfinite(states))[0].tolist()
        raise BadInput(
            f"{columns[column]} is {states[row, column]} at rollout {rollouts[row]}, position {positions[row]}: "
            f"the model overflows, or the scalar exceeds float16's 65504; look at the adapter's training"
        )
    return StateBatch(rollouts, positions, tokens, states)


def _count_mine(plan: Plan, shelf: Shelf, rank: Rank) -> None:
    """Value counts of this process's shards, where process 0 finds them."""
    path = _counts_path(shelf, rank, rank.index)
    mine = tuple(shelf.path(index) for index in rank.share(len(plan.shards)))
    counts_CV = count_values(Shards.of(mine)) if mine else np.zeros((len(shelf.columns), 1), np.uint32)
    with whole(path) as partial, partial.open("wb") as file:
        np.save(file, counts_CV, allow_pickle=False)


def _counts_path(shelf: Shelf, rank: Rank, index: int) -> Path:
    """Of this attempt, so that its presence says that process `index` has checked and finished its shards."""
    return shelf.folder / f"counts-{index}-of-{rank.world}-{rank.attempt}-{shelf.fingerprint}.npy"


def _finish(plan: Plan, shelf: Shelf, rank: Rank, out: Path) -> None:
    """Process 0: wait for the others, add up the counts, fill the artifact's folder."""
    import pyarrow.parquet as pq

    paths = [_counts_path(shelf, rank, index) for index in range(rank.world)]
    wait_for(paths)
    total_CV = np.load(paths[0]).astype(np.uint64)
    for path in paths[1:]:
        total_CV += np.load(path)
    pq.write_table(summarise(shelf.columns, total_CV), out / STATISTICS_FILE)
    shelf.publish(len(plan.shards), out)


def _metrics(plan: Plan, shelf: Shelf, run: _Run, out: Path) -> CaptureMetrics:
    size = sum(path.stat().st_size for path in out.glob(SHARDS))
    return CaptureMetrics(
        tokens=plan.num_rows,
        rollouts=sum(len(shard.readings) for shard in plan.shards),
        columns=len(shelf.columns),
        shards=len(plan.shards),
        bytes_per_token=size / plan.num_rows,
        rollouts_cut=plan.rollouts_cut,
        tokens_cut=plan.tokens_cut,
        shards_reused=run.reused,
        tokens_per_second=run.tokens / run.seconds if run.seconds else 0.0,
        writer_wait_share=shelf.waited_s / run.seconds if run.seconds else 0.0,
    )
