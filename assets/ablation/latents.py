"""`latent_kl`: the KL of single SAE latents, subtracted from the adapter's state.

An asset of its own: another dictionary leaves the ablation of the adapter's parts as it is.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, JsonValue

from assets.ablation.ablate import short
from assets.ablation.activity import firings, heaviest, removal_of_latent
from assets.ablation.adapted import AdaptedModel
from assets.ablation.artifact import ABLATION, ABLATION_SCHEMA
from assets.ablation.catalogue import Part
from assets.ablation.config import AblationConfig, LatentAblationConfig
from assets.ablation.edits import Edit
from assets.ablation.workbench import Workbench, draw_passages, row_of, write_rollouts
from assets.sae.artifact import Sae
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.models import ModelConfig
from resources.progress import Progress
from resources.ranks import Rank
from resources.shards import Shards


class LatentMetrics(BaseModel, frozen=True):
    """What the UI shows."""

    n_units: int
    n_rollouts: int
    n_tokens: int
    latents: list[dict[str, JsonValue]]
    """By activation mass on the drawn rollouts, heaviest first."""


def ablate_latents(
    *,
    model: ModelConfig,
    ablation: AblationConfig,
    latent_ablation: LatentAblationConfig,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    activation_shards: Path,
    batchtopk_sae: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> LatentMetrics:
    """Subtract what each of the heaviest latents' decoder rows writes at captured tokens, one latent at a time.

    Raises:
        BadInput: when no latent fires on the drawn rollouts, and as `ablate` does.
    """
    passages = draw_passages(s1k_dataset, ablation)
    adapted = AdaptedModel.load(model, lora_checkpoint, Rank.here().device(compute.device))
    sae, shards = Sae.open(batchtopk_sae), Shards.open(activation_shards)
    found = [firings(sae, shards, passage) for passage in passages]
    chosen = heaviest(sae, found, latent_ablation.latents)
    parts = [Part("latent", f"latent:{latent}", frozenset(), latent=latent) for latent in chosen]
    if not parts:
        raise BadInput(f"no latent of the SAE fires on the {len(passages)} drawn rollouts: raise ablation.num_rollouts")

    def edit(part: Part, which: int) -> Edit | None:
        assert part.latent is not None  # by construction
        length = len(passages[which].ids_T)
        return removal_of_latent(sae, part.latent, found[which], adapted.live, length, adapted.device)

    sums = Workbench(adapted, passages, edit, compute).measure_all(parts, ablation.slices, scratch / "parts", progress)
    rows = list(map(row_of, parts, sums))
    if Rank.here().index == 0:
        pq.write_table(pa.Table.from_pylist(rows, schema=ABLATION_SCHEMA), out / ABLATION)
        write_rollouts(out, parts, sums, passages)
    return LatentMetrics(
        n_units=len(rows),
        n_rollouts=rows[0]["n_rollouts"],
        n_tokens=rows[0]["n_tokens"],
        latents=[short(row) for row in rows],
    )
