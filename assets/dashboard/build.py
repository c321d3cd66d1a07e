"""Write the feature dashboard: the page, the list of units, and lazily loaded chunks of details and rollouts."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from assets.dashboard.artifact import FEATURES
from assets.dashboard.chunks import write_chunk, write_index
from assets.dashboard.config import DashboardConfig
from assets.dashboard.directions import LogitEffects, decoder_grid
from assets.dashboard.full_rollouts import Full, choose_rollouts, full_values
from assets.dashboard.units import Sources, Texts, UnitTable, contexts_of, read_units, top_tokens
from assets.dataset.artifact import S1kDataset
from assets.sae.artifact import Sae
from resources.models import ModelConfig
from resources.progress import Progress
from resources.shards import Shards

SITE = Path(__file__).parent / "site"


class DashboardMetrics(BaseModel):
    """What the site holds."""

    model_config = ConfigDict(frozen=True)

    units: int
    rollouts: int
    contexts: int
    site_bytes: int


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
    table = read_units(Sources(max_activating_contexts, interpretations, interpretation_scores, feature_categories))
    progress.say(f"{len(table)} units, {table.contexts.num_rows} contexts")
    chosen = choose_rollouts(table, dashboard.full_rollouts)
    maxima = dict(zip(table.columns["unit"], table.columns["max"], strict=True))
    full = full_values(chosen, maxima, states, neurons, sae)
    progress.say(f"full activations of {len(chosen)} rollouts")
    effects = LogitEffects(model, lora_checkpoint, sae, states.columns, dashboard.logit_tokens)
    texts = Texts(dataset)
    shutil.copytree(SITE, out, dirs_exist_ok=True)
    size = _write_units(out / "data", table, full, effects, sae, states.columns, texts, dashboard, progress)
    rollouts = sorted(set(table.contexts["rollout_id"].to_pylist()))
    size += _write_rollouts(out / "data", rollouts, dataset, texts, dashboard)
    _write_list(out, model, table, rollouts, dashboard)
    return DashboardMetrics(units=len(table), rollouts=len(rollouts), contexts=table.contexts.num_rows, site_bytes=size)


def _write_units(
    folder: Path,
    table: UnitTable,
    full: Full,
    effects: LogitEffects,
    sae: Sae,
    columns: tuple[str, ...],
    texts: Texts,
    config: DashboardConfig,
    progress: Progress,
) -> int:
    table.columns["tokens"] = []
    size = 0
    for number, first in enumerate(range(0, len(table), config.units_per_chunk)):
        details = []
        for row in range(first, min(first + config.units_per_chunk, len(table))):
            unit, index = table.columns["unit"][row], table.columns["index"][row]
            detail = _detail(table, row, texts) | {"full": full.get(unit, {}), "logits": effects.of(unit)}
            is_latent = table.columns["kind"][row] == "latent"
            detail["decoder"] = decoder_grid(sae, columns, index) if is_latent else None
            table.columns["tokens"].append([token for token, _ in detail["top_tokens"][:3]])
            details.append(detail)
        size += write_chunk(folder, "units", number, details)
        progress.step("units", first + len(details), len(table))
    return size


def _detail(table: UnitTable, row: int, texts: Texts) -> dict:
    unit = table.columns["unit"][row]
    contexts = contexts_of(table, unit, texts)
    return {
        "unit": unit,
        "polarity": table.columns["polarity"][row],
        "max": table.columns["max"][row],
        "sum": table.details["sum"][row].as_py(),
        "histogram": table.details["histogram"][row].as_py(),
        "reasoning": table.columns["reasoning"][row],
        "top_tokens": top_tokens(contexts),
        "contexts": contexts,
    }


def _write_rollouts(
    folder: Path, rollouts: list[int], dataset: S1kDataset, texts: Texts, config: DashboardConfig
) -> int:
    size = 0
    for number, first in enumerate(range(0, len(rollouts), config.rollouts_per_chunk)):
        chunk = rollouts[first : first + config.rollouts_per_chunk]
        size += write_chunk(
            folder, "rollouts", number, [{"pieces": texts.of(r), "roles": dataset.roles(r).tolist()} for r in chunk]
        )
    return size


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
    pq.write_table(pa.table(table.columns), out / FEATURES)
