"""Write the feature dashboard: the page, the list of units, and lazily loaded chunks of details and rollouts."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from assets.dashboard.artifact import FEATURES, FEATURES_SCHEMA
from assets.dashboard.chunks import ChunkWriter, write_index
from assets.dashboard.config import DashboardConfig
from assets.dashboard.directions import DecoderGrid, LogitEffects
from assets.dashboard.full_rollouts import Full, choose_rollouts, full_values
from assets.dashboard.pieces import Pieces
from assets.dashboard.units import Sources, UnitTable, read_units
from assets.dataset.artifact import S1kDataset
from assets.sae.artifact import Sae
from resources.models import ModelConfig
from resources.progress import Progress
from resources.shards import Shards

SITE = Path(__file__).parent / "site"
TOP_TOKENS, SEARCHED_TOKENS = 8, 3
"""Peak tokens listed per unit, and how many of them the search finds."""


class DashboardMetrics(BaseModel, frozen=True):
    """What the site holds."""

    units: int
    rollouts: int
    contexts: int
    site_bytes: int


@dataclass(frozen=True)
class Content:
    """Everything that the chunks are cut from."""

    table: UnitTable
    pieces: Pieces
    full: Full
    effects: LogitEffects
    grid: DecoderGrid


def build(
    *,
    model: ModelConfig,
    dashboard: DashboardConfig,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    activation_shards: Path,
    neuron_shards: Path,
    batchtopk_sae: Path,
    max_activating_contexts: Path,
    interpretations: Path,
    interpretation_scores: Path,
    feature_categories: Path,
    out: Path,
    progress: Progress,
) -> DashboardMetrics:
    """Write the site into `out`; `index.html` opens from the file or any web server."""
    dataset, sae = S1kDataset.open(s1k_dataset), Sae.open(batchtopk_sae)
    states, neurons = Shards.open(activation_shards), Shards.open(neuron_shards)
    sources = Sources(max_activating_contexts, interpretations, interpretation_scores, feature_categories)
    table = read_units(sources, dashboard)
    progress.say(f"{len(table)} units, {len(table.contexts)} contexts")
    rollouts = np.unique(table.contexts.rollout_C).tolist()
    pieces = Pieces.of(dataset, rollouts)
    progress.say(f"{len(pieces.vocabulary)} distinct pieces in {len(pieces.piece_T)} tokens")
    of_kind = {
        "adapter": dashboard.full_rollouts_adapter,
        "neuron": dashboard.full_rollouts_neuron,
        "latent": dashboard.full_rollouts,
    }
    wanted = choose_rollouts(table, of_kind)
    full = full_values(wanted, states, neurons, sae)
    progress.say(f"every activation of {len(wanted)} rollouts")
    effects = LogitEffects(model, lora_checkpoint, sae, states.columns, dashboard.logit_tokens)
    shutil.copytree(SITE, out, dirs_exist_ok=True)
    content = Content(table, pieces, full, effects, DecoderGrid(sae, states.columns))
    writer = ChunkWriter(out / "data")
    writer.write("pieces", 0, {"pieces": pieces.vocabulary}, {})
    _write_units(writer, content, dashboard.units_per_chunk, progress)
    _write_rollouts(writer, rollouts, dataset, pieces, dashboard.rollouts_per_chunk)
    _write_list(out, model, table, rollouts, dashboard)
    size = writer.finish()
    return DashboardMetrics(units=len(table), rollouts=len(rollouts), contexts=len(table.contexts), site_bytes=size)


def _write_units(writer: ChunkWriter, content: Content, per_chunk: int, progress: Progress) -> None:
    table = content.table
    table.columns["tokens"] = []
    for number, first in enumerate(range(0, len(table), per_chunk)):
        rows = range(first, min(first + per_chunk, len(table)))
        effects = content.effects.of(table.columns["unit"][first : rows.stop])
        details = [{**_detail(content, row), "logits": found} for row, found in zip(rows, effects, strict=True)]
        for detail in details:
            table.columns["tokens"].append([token for token, _ in detail["top_tokens"][:SEARCHED_TOKENS]])
        names = [detail["unit"] for detail in details]
        writer.write("units", number, {"units": details}, _context_arrays(content, names))
        _write_full(writer, number, {name: content.full.get(name, {}) for name in names})
        progress.step("units", rows.stop, len(table))


def _detail(content: Content, row: int) -> dict:
    table = content.table
    unit, index = table.columns["unit"][row], table.columns["index"][row]
    first, end = table.contexts.of(unit)
    is_latent = table.columns["kind"][row] == "latent"
    return {
        "unit": unit,
        "polarity": table.columns["polarity"][row],
        "max": table.columns["max"][row],
        "threshold": table.details["threshold"][row].as_py(),
        "sum": table.details["sum"][row].as_py(),
        "histogram": table.details["histogram"][row].as_py(),
        "reasoning": table.columns["reasoning"][row],
        "top_tokens": _top_tokens(content, unit),
        "contexts": end - first,
        "decoder": content.grid.of(index) if is_latent else None,
    }


def _top_tokens(content: Content, unit: str) -> list[tuple[str, int]]:
    """Texts of the peak tokens of the strongest contexts, most frequent first."""
    contexts, pieces = content.table.contexts, content.pieces
    top = contexts.strongest(unit)
    peaks = pieces.windows(contexts.rollout_C[top], contexts.position_C[top], np.ones(len(top), np.int64))
    found, counts = np.unique(peaks, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:TOP_TOKENS]
    return [(pieces.vocabulary[found[i]], int(counts[i])) for i in order]


def _context_arrays(content: Content, names: list[str]) -> dict[str, np.ndarray]:
    """Contexts of a chunk's units, one unit after the other, and their windows."""
    contexts = content.table.contexts
    bounds = list(map(contexts.of, names))
    rows = np.concatenate([np.arange(first, end) for first, end in bounds])
    length_C = np.diff(contexts.offset_C)[rows]
    rollout_C, start_C = contexts.rollout_C[rows], contexts.start_C[rows]
    spans = [slice(contexts.offset_C[first], contexts.offset_C[end]) for first, end in bounds]
    return {
        "rollout": rollout_C.astype(np.uint32),
        "position": contexts.position_C[rows].astype(np.uint32),
        "start": start_C.astype(np.uint32),
        "value": contexts.value_C[rows].astype(np.float32),
        "length": length_C.astype(np.uint32),
        "sample": contexts.sample_C[rows],
        "pieces": content.pieces.windows(rollout_C, start_C, length_C),
        "values": np.concatenate([contexts.values_W[span] for span in spans]),
    }


def _write_full(writer: ChunkWriter, number: int, full: Full) -> None:
    """Units in full rollouts, in a file of their own: only the rollout's view needs it."""
    places: dict[str, dict[int, tuple[int, int, float]]] = {}
    levels = [np.zeros(0, np.int8)]
    offset = 0
    for unit, rollouts in full.items():
        places[unit] = {}
        for rollout, level in rollouts.items():
            places[unit][rollout] = (offset, len(level.level_T), level.scale)
            levels.append(level.level_T)
            offset += len(level.level_T)
    writer.write("full", number, {"places": places}, {"levels": np.concatenate(levels)})


def _write_rollouts(
    writer: ChunkWriter, rollouts: list[int], dataset: S1kDataset, pieces: Pieces, per_chunk: int
) -> None:
    for number, first in enumerate(range(0, len(rollouts), per_chunk)):
        chunk = rollouts[first : first + per_chunk]
        parts = [pieces.rollout(r) for r in chunk]
        roles = np.concatenate([dataset.roles(r) for r in chunk]).astype(np.uint8)
        arrays = {"pieces": np.concatenate(parts), "roles": roles}
        writer.write("rollouts", number, {"lengths": [len(part) for part in parts]}, arrays)


def _write_list(out: Path, model: ModelConfig, table: UnitTable, rollouts: list[int], config: DashboardConfig) -> None:
    """The list for the page, and the same as Parquet for notebooks."""
    columns = {name: values for name, values in table.columns.items() if name != "reasoning"}
    index = {
        "model": model.name,
        "units": columns,
        "rollouts": rollouts,
        "sizes": {"units": config.units_per_chunk, "rollouts": config.rollouts_per_chunk},
    }
    write_index(out / "data" / "index.js", index)
    pq.write_table(pa.table(table.columns, schema=FEATURES_SCHEMA), out / FEATURES)
