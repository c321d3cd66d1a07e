"""The plan before the work: for each asset of an experiment, hit or miss, why, and what it will cost.

Keys depend on configs, code versions and input keys only, so the plan and the run cannot disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal

from assets.activations.config import NeuronsConfig
from assets.adapter.config import LoraConfig
from assets.sae.config import SaeConfig
from dagster_project.consistency import adapted
from dagster_project.experiment import Experiment
from dagster_project.rooms import ASKING, STAGES
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.keys import artifact_key
from resources.manifest import Manifest
from resources.memory import architecture
from resources.models import ModelConfig
from resources.section import section_of, written
from resources.stage import Stage
from resources.store import Store
from resources.units import Kind
from resources.whole import write_whole

ABSENT = "absent"
"""Shown for a knob that a version of the code does not have."""


@dataclass(frozen=True)
class PlannedAsset:
    """One line of the plan."""

    asset: str
    room: str
    cache: Literal["hit", "miss"]
    key: str
    reason: str
    seconds: float | None
    """Wall time of the last comparable run; 0 for a hit, None when there was none."""
    cost_usd: float | None
    """Paid requests, US dollars: of the room's cost model, else of the last comparable run; 0 for a hit."""


def keys(experiment: Experiment) -> dict[str, str]:
    """The key of every asset, left to right."""
    found: dict[str, str] = {}
    for stage in STAGES:
        sections = {name: experiment.versions[name] for name in stage.sections}
        inputs = {name: found[name] for name in stage.inputs}
        found[stage.asset] = artifact_key(stage.asset, stage.code_version, sections, inputs)
    return found


class History:
    """Which key each experiment last had for each asset: what a change is told against."""

    def __init__(self, store: Store) -> None:
        self._folder = store.root / ".history"

    def last(self, experiment: str, asset: str) -> str | None:
        """The key recorded last, if any."""
        path = self._folder / experiment / asset
        return path.read_text(errors="replace") if path.is_file() else None

    def record(self, experiment: str, asset: str, key: str) -> None:
        """Note that the experiment now has this key."""
        if self.last(experiment, asset) == key:
            return
        path = self._folder / experiment / asset
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, key)  # two runs may come by the same key at once


def plan(experiment: Experiment, store: Store) -> list[PlannedAsset]:
    """One line per asset, left to right."""
    history, found = History(store), keys(experiment)
    return [_planned(stage, experiment, found, store, history) for stage in STAGES]


def _planned(
    stage: Stage, experiment: Experiment, found: Mapping[str, str], store: Store, history: History
) -> PlannedAsset:
    key = found[stage.asset]
    present = store.whole(stage.asset, key)
    if present is not None:
        return PlannedAsset(stage.asset, stage.room, "hit", key, f"computed for {present.experiment}", 0.0, 0.0)
    dollars = _dollars(stage, experiment)
    before = _earlier(stage, experiment, store, history)
    if before is None:
        return PlannedAsset(stage.asset, stage.room, "miss", key, "never computed", None, dollars)
    reason = "; ".join(_changes(stage, experiment, found, before)) or "removed or damaged"
    cost = before.cost_usd if dollars is None else dollars
    seconds = before.seconds if _asked(before) in (None, bool(vendors(stage, experiment))) else None
    return PlannedAsset(stage.asset, stage.room, "miss", key, reason, seconds, cost)


def vendors(stage: Stage, experiment: Experiment) -> tuple[str, ...]:
    """Whose models the stage asks."""
    return experiment.sections[ASKING[stage.asset]].vendors() if stage.asset in ASKING else ()


def _asked(before: Manifest) -> bool | None:
    """Whether a model was asked then, which takes seconds where a predicate takes a millisecond; None: never is."""
    counts = [before.metrics[name] for name in ("requests", "cached") if name in before.metrics]
    return any(counts) if counts else None


def _dollars(stage: Stage, experiment: Experiment) -> float | None:
    """What the room's cost model says; 0 for stages that ask nobody, None when the units are not known."""
    if not stage.needs.cost_model:
        return 0.0
    units = num_units(experiment)
    if units is None:
        return None
    return resolve_name(stage.needs.cost_model)(experiment.sections, units, experiment.compute)


def num_units(experiment: Experiment) -> dict[Kind, int] | None:
    """Directions and neurons in both polarities, and latents (paper: 896, 7680 and 3584); None: not known, or none."""
    sections = experiment.sections
    sizes = architecture(section_of(sections, ModelConfig))
    if sizes is None:
        return None
    sae = section_of(sections, SaeConfig)
    try:
        components = adapted(section_of(sections, LoraConfig), sizes)
        latents = sae.expansion * len(sae.entering(components))
    except BadInput:  # what does not fit is told before a run
        return None
    neurons = section_of(sections, NeuronsConfig).per_layer * sizes.num_hidden_layers
    return {"adapter": 2 * len(components), "neuron": 2 * neurons, "latent": latents}


def _earlier(stage: Stage, experiment: Experiment, store: Store, history: History) -> Manifest | None:
    """What this experiment had last, else its nearest ancestor."""
    for name in (path.stem for path in experiment.files):
        key = history.last(name, stage.asset)
        manifest = store.peek(stage.asset, key) if key else None
        if manifest is not None:
            return manifest
    return None


def _changes(stage: Stage, experiment: Experiment, found: Mapping[str, str], before: Manifest) -> list[str]:
    """What differs from an earlier artifact, in the user's words."""
    changes: list[str] = []
    if before.code_version != stage.code_version:
        changes.append(f"code version {before.code_version} → {stage.code_version}")
    for section in stage.sections:
        changes += _section_changes(section, experiment, before)
    for name in stage.inputs:
        if before.inputs.get(name) != found[name]:
            changes.append(f"input {name} changed")
    return changes


def _section_changes(section: str, experiment: Experiment, before: Manifest) -> list[str]:
    if before.section_versions.get(section) == experiment.versions[section]:
        return []
    old, new = before.sections.get(section, {}), experiment.values(section)
    pairs = ((field, old.get(field, ABSENT), new.get(field, ABSENT)) for field in {**new, **old})
    changed = [f"{section}.{field} {written(was)} → {written(now)}" for field, was, now in pairs if was != now]
    return changed or [f"content of a file that {section} names changed"]


def beyond_caps(planned: Sequence[PlannedAsset], compute: ComputeConfig) -> list[str]:
    """One sentence for each cap at which paid requests are likely to stop.

    They refuse nothing: answers of an earlier run may be kept, and a run that stops goes on where it was.
    """
    run, purse = compute.llm_run_dollars, compute.llm_purse_dollars
    said = [
        f"{line.asset} is likely to stop at compute.llm_run_dollars of {run:g}: it would cost ${line.cost_usd:.2f}"
        for line in planned
        if (line.cost_usd or 0.0) > run
    ]
    cost = total(planned)["cost_usd"]
    if cost > purse:
        said.append(f"together they are likely to stop at compute.llm_purse_dollars of {purse:g}")
    return said


def total(planned: Sequence[PlannedAsset]) -> dict[str, float | int]:
    """Sums over the plan, for its last line."""
    return {
        "hits": sum(line.cache == "hit" for line in planned),
        "misses": sum(line.cache == "miss" for line in planned),
        "unknown": sum(line.seconds is None for line in planned),
        "seconds": sum(line.seconds or 0.0 for line in planned),
        "cost_usd": sum(line.cost_usd or 0.0 for line in planned),
    }


def run_folder(runs: Path, asset: str, key: str) -> Path:
    """Where the job for a key keeps its log and messages."""
    return runs / f"{asset}-{key}"


def finished_run_folder(runs: Path, name: str) -> Path:
    """Where the log of a finished job stays, by the name of its run folder."""
    return runs / ".finished" / name
