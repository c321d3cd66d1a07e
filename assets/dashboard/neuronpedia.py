"""Units in Neuronpedia's interchange files, so that an instance of it can show them: one source per kind of unit.

Files as its own export writes them (`export-data.py` and `schema.prisma`, neuronpedia 008d5040): `model.jsonl`,
`release.jsonl`, `sourceset.jsonl`, `source.jsonl`, and batches of 1024 units under `features/`, `explanations/` and
`activations/`, gzip. Postgres holds no NUL in text, so NUL becomes U+FFFD.
"""

import gzip
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from assets.contexts.artifact import SAMPLES
from assets.dashboard.config import DashboardConfig
from assets.dashboard.directions import Effects, LogitEffects
from assets.dashboard.pieces import Pieces
from assets.dashboard.units import Sources, UnitTable, read_units
from assets.dataset.artifact import S1kDataset
from assets.dataset.config import DatasetConfig
from assets.sae.artifact import Sae
from resources.models import ModelConfig, load_architecture

BATCH = 1024
"""Units per file."""
CREATOR = "lorascope"
"""Id of the user whom an instance should know before the import."""
RELEASE = "lorascope"


class Row(BaseModel):
    """A row of one of Neuronpedia's tables; columns left out take its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRow(Row):
    """Table `Model`."""

    id: str
    displayNameShort: str
    displayName: str
    creatorId: str = CREATOR
    visibility: Literal["PRIVATE"] = "PRIVATE"
    instruct: bool = True
    layers: int
    neuronsPerLayer: int
    owner: str = CREATOR


class ReleaseRow(Row):
    """Table `SourceRelease`."""

    name: str = RELEASE
    visibility: Literal["PRIVATE"] = "PRIVATE"
    description: str
    urls: list[str] = []
    creatorName: str = CREATOR
    creatorId: str = CREATOR


class SourceSetRow(Row):
    """Table `SourceSet`."""

    modelId: str
    name: str
    visibility: Literal["PRIVATE"] = "PRIVATE"
    description: str
    type: str
    creatorName: str = CREATOR
    urls: list[str] = []
    creatorId: str = CREATOR
    releaseName: str = RELEASE


class SourceRow(Row):
    """Table `Source`."""

    id: str
    modelId: str
    visibility: Literal["PRIVATE"] = "PRIVATE"
    setName: str
    creatorId: str = CREATOR
    num_prompts: int
    dataset: str


class FeatureRow(Row):
    """Table `Neuron`: any kind of unit."""

    modelId: str
    layer: str
    """The source's id."""
    index: str
    """0, 1, 2, ... within the source; `vectorLabel` has the unit."""
    sourceSetName: str
    creatorId: str = CREATOR
    maxActApprox: float
    frac_nonzero: float
    freq_hist_data_bar_heights: list[float]
    freq_hist_data_bar_values: list[float]
    """Middles of the bins."""
    pos_str: list[str]
    pos_values: list[float]
    neg_str: list[str]
    neg_values: list[float]
    vectorLabel: str


class ExplanationRow(Row):
    """Table `Explanation`."""

    id: str
    modelId: str
    layer: str
    index: str
    authorId: str = CREATOR
    description: str
    typeName: str | None = None
    explanationModelName: str | None = None
    notes: str
    """Who explained it: Neuronpedia's own lists of methods and models do not know ours."""


class ActivationRow(Row):
    """Table `Activation`: one context."""

    id: str
    modelId: str
    layer: str
    index: str
    creatorId: str = CREATOR
    dataIndex: str
    """`rollout:position` of the first token."""
    dataSource: str
    tokens: list[str]
    values: list[float]
    maxValue: float
    maxValueTokenIndex: int
    minValue: float
    binMin: float
    binMax: float
    binContains: float
    """Share of the unit's firing tokens in this bin of its histogram."""
    qualifyingTokenIndex: int
    """The token that the context was taken for."""


@dataclass(frozen=True)
class Artifacts:
    """The folders an export reads."""

    s1k_dataset: Path
    lora_checkpoint: Path
    batchtopk_sae: Path
    max_activating_contexts: Path
    interpretations: Path
    interpretation_scores: Path
    feature_categories: Path


def export(
    model: ModelConfig, corpus: DatasetConfig, config: DashboardConfig, artifacts: Artifacts, out: Path
) -> list[Path]:
    """Write one folder per kind of unit into `out`, and return them."""
    dataset, sae = S1kDataset.open(artifacts.s1k_dataset), Sae.open(artifacts.batchtopk_sae)
    sources = Sources(
        artifacts.max_activating_contexts,
        artifacts.interpretations,
        artifacts.interpretation_scores,
        artifacts.feature_categories,
    )
    table = read_units(sources, config)
    pieces = Pieces.of(dataset, np.unique(table.contexts.rollout_C).tolist())
    effects = LogitEffects(model, artifacts.lora_checkpoint, sae, sae.columns, config.logit_tokens)
    architecture = load_architecture(model)
    shown = ModelRow(
        id=re.sub(r"[^a-z0-9_-]", "-", Path(model.name).name.lower()),
        displayNameShort=Path(model.name).name,
        displayName=model.name,
        layers=architecture.num_hidden_layers,
        neuronsPerLayer=architecture.intermediate_size,
    )
    folders: list[Path] = []
    for kind in dict.fromkeys(table.columns["kind"]):
        rows = [row for row, found in enumerate(table.columns["kind"]) if found == kind]
        folders.append(
            _write_source(out, shown, corpus.source, dataset.num_rollouts, kind, rows, table, pieces, effects)
        )
    return folders


def _write_source(
    out: Path,
    model: ModelRow,
    corpus: str,
    prompts: int,
    kind: str,
    rows: Sequence[int],
    table: UnitTable,
    pieces: Pieces,
    effects: LogitEffects,
) -> Path:
    name = f"lorascope-{kind}"
    source = f"0-{name}"
    folder = out / model.id / source
    for earlier in folder.glob("*/batch-*.jsonl.gz"):
        earlier.unlink()  # an import would take the units of a larger export beside ours
    about = f"Rank-1 LoRA units of kind {kind}"
    _write(folder / "model.jsonl", [model])
    _write(folder / "release.jsonl", [ReleaseRow(description=about)])
    _write(folder / "sourceset.jsonl", [SourceSetRow(modelId=model.id, name=name, description=about, type=kind)])
    origin = SourceRow(id=source, modelId=model.id, setName=name, num_prompts=prompts, dataset=corpus)
    _write(folder / "source.jsonl", [origin])
    for batch, first in enumerate(range(0, len(rows), BATCH)):
        mine = rows[first : first + BATCH]
        place = [{"modelId": model.id, "layer": source, "index": str(first + i)} for i in range(len(mine))]
        logits = effects.of([table.columns["unit"][row] for row in mine])
        features = [_feature(table, row, p, name, e) for row, p, e in zip(mine, place, logits, strict=True)]
        _write(folder / "features" / f"batch-{batch}.jsonl.gz", features)
        explained = ((row, p) for row, p in zip(mine, place, strict=True) if table.columns["explanation"][row])
        said = [_explanation(table.columns, row, p) for row, p in explained]
        _write(folder / "explanations" / f"batch-{batch}.jsonl.gz", said)
        contexts = (one for row, p in zip(mine, place, strict=True) for one in _activations(table, row, p, pieces))
        _write(folder / "activations" / f"batch-{batch}.jsonl.gz", contexts)
    return folder


def _feature(table: UnitTable, row: int, place: Mapping[str, str], name: str, logits: Effects | None) -> FeatureRow:
    columns, counts = table.columns, table.details["histogram"][row].as_py()
    width = columns["max"][row] / len(counts)
    up, down = (logits["up"], logits["down"]) if logits else ([], [])
    return FeatureRow(
        **place,
        sourceSetName=name,
        maxActApprox=columns["max"][row],
        frac_nonzero=columns["density"][row],
        freq_hist_data_bar_heights=counts,
        freq_hist_data_bar_values=[(i + 0.5) * width for i in range(len(counts))],
        pos_str=[_clean(text) for text, _ in up],
        pos_values=[value for _, value in up],
        neg_str=[_clean(text) for text, _ in down],
        neg_values=[value for _, value in down],
        vectorLabel=columns["unit"][row],
    )


def _explanation(columns: Mapping[str, list], row: int, place: Mapping[str, str]) -> ExplanationRow:
    return ExplanationRow(
        id=_id("explanation", *place.values()),
        **place,
        description=_clean(columns["explanation"][row]),
        notes=f"{columns['unit'][row]}, explained by {columns['explainer'][row]}",
    )


def _activations(table: UnitTable, row: int, place: Mapping[str, str], pieces: Pieces) -> Iterator[ActivationRow]:
    """The strongest contexts and those across the range; silent ones have no bin."""
    contexts, unit = table.contexts, table.columns["unit"][row]
    counts = table.details["histogram"][row].as_py()
    width = table.columns["max"][row] / len(counts)
    first, end = contexts.of(unit)
    for i in range(first, end):
        if SAMPLES[contexts.sample_C[i]] == "silent":
            continue
        values = contexts.values_W[contexts.offset_C[i] : contexts.offset_C[i + 1]].astype(np.float64).tolist()
        rollout, start = int(contexts.rollout_C[i]), int(contexts.start_C[i])
        texts = pieces.rollout(rollout)[start : start + len(values)]
        share = float(contexts.value_C[i]) / table.columns["max"][row]
        bin_ = min(max(math.ceil(share * len(counts)) - 1, 0), len(counts) - 1)  # (b, b + 1], as it was counted
        yield ActivationRow(
            id=_id("activation", *place.values(), str(i - first)),
            **place,
            dataIndex=f"{rollout}:{start}",
            dataSource=SAMPLES[contexts.sample_C[i]],
            tokens=[_clean(pieces.vocabulary[piece]) for piece in texts],
            values=values,
            maxValue=max(values),
            maxValueTokenIndex=values.index(max(values)),
            minValue=min(values),
            binMin=bin_ * width,
            binMax=(bin_ + 1) * width,
            binContains=counts[bin_] / max(1, sum(counts)),
            qualifyingTokenIndex=int(contexts.position_C[i]) - start,
        )


def _id(*parts: str) -> str:
    """The same row always has the same id, so that a second import replaces the first."""
    return "c" + hashlib.sha256("/".join(parts).encode()).hexdigest()[:24]


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(
        json.dumps(row.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n" for row in rows
    ).encode()
    path.write_bytes(gzip.compress(content, 5, mtime=0) if path.suffix == ".gz" else content)
