"""Experiments side by side: the parameters that differ first, then every headline number with its delta."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from assets.interpretations.artifact import CLASSES, Interpretations
from assets.paper.stability import stability
from resources.agreement import kappa
from resources.keys import digest
from resources.manifest import Manifest
from resources.section import written

Row = dict[str, Any]
SCALARS = (
    ("LoRA, loss of the last epoch", "lora_checkpoint", "last_epoch_loss"),
    ("full finetune, loss of the last epoch", "full_finetune_checkpoint", "last_epoch_loss"),
    ("SAE, FVU", "batchtopk_sae", "held_out/fvu"),
    ("SAE, L0", "batchtopk_sae", "held_out/l0"),
    ("SAE, live latents", "batchtopk_sae", "live_latents"),
    ("SAE, dead latents", "batchtopk_sae", "dead_latents"),
    ("SAE, KL of its reconstruction", "batchtopk_sae", "effect/kl_reconstructed"),
    ("SAE, cross-entropy recovered", "batchtopk_sae", "effect/cross_entropy_recovered"),
    ("classes, kappa with the statistical ones", "interpretations", "agreement_kappa"),
    ("explanations, agreement of a further answer or half", "interpretations", "stability"),
    ("KL, all components", "ablation_kl", "kl_all"),
    ("KL, attention", "ablation_kl", "kl_attention"),
    ("KL, MLP", "ablation_kl", "kl_mlp"),
)
"""Label, asset, place of the number in its metrics."""
TABLES = (
    ("KL", "ablation_kl", "projections", ("unit",), "kl_mean"),
    ("class share", "category_densities", "classes", ("kind", "label"), "share"),
    ("category share", "category_densities", "densities", ("kind", "category", "subcategory"), "share"),
    ("score", "benchmark_scores", "scores", ("benchmark", "arm"), "score"),
    ("recovery", "benchmark_scores", "table_1", ("benchmark",), "recovery"),
)
"""Label, asset, table in its metrics, columns that name a row, column with the number."""
MEASURED_ON = ("layers", "projections", "held_out_fraction", "held_out_seed", "evaluation_tokens")
"""Knobs of an SAE that say, beside the activations, which numbers of which tokens its L0 and FVU are of."""


@dataclass(frozen=True)
class Side:
    """One experiment of a comparison."""

    name: str
    sections: Mapping[str, Mapping[str, JsonValue]]
    manifests: Mapping[str, Manifest]
    """Of the assets it has computed."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Of its artifacts, where they are whole."""


@dataclass(frozen=True)
class Comparison:
    """What differs, and what came of it."""

    parameters: list[Row]
    """parameter, then one column per experiment."""
    numbers: list[Row]
    """number, one column per experiment, and with two of them the delta."""
    frontier: list[Row] = field(default_factory=list)
    """SAEs from the sparsest: experiment, k, l0, fvu, and whether another is as sparse and explains more."""
    stability: list[Row] = field(default_factory=list)
    """Two SAEs that differ in their seed alone: how many of their latents the other has too."""
    agreement: list[Row] = field(default_factory=list)
    """Two explainers of the same contexts: kappa, and how many units have which two classes (`0 / 1`)."""


def compare(sides: Sequence[Side]) -> Comparison:
    """Parameters that are not the same everywhere, and every headline number that any side has."""
    return Comparison(_parameters(sides), _numbers(sides), _frontier(sides), _stability(sides), _agreement(sides))


def _stability(sides: Sequence[Side]) -> list[Row]:
    """Of every two different SAEs on the same activations."""
    saes = {side.manifests["batchtopk_sae"].key: side for side in sides if "batchtopk_sae" in side.folders}
    by_data: dict[str, list[tuple[str, Mapping[str, JsonValue], Path]]] = {}
    for side in saes.values():
        data = side.manifests["batchtopk_sae"].inputs["activation_shards"]
        by_data.setdefault(data, []).append((side.name, side.sections["sae"], side.folders["batchtopk_sae"]))
    return [row for same in by_data.values() for row in stability(same)]


def _agreement(sides: Sequence[Side]) -> list[Row]:
    """Every two different explanations of the same contexts; never of one and the same artifact."""
    by_key = {side.manifests["interpretations"].key: side for side in sides if "interpretations" in side.folders}
    rows = [
        _agreed(*pair) for pair in combinations(by_key.values(), 2) if len({_contexts_of(one) for one in pair}) == 1
    ]
    return [row for row in rows if row["units"]]


def _contexts_of(side: Side) -> str:
    return side.manifests["interpretations"].inputs["max_activating_contexts"]


def _agreed(first: Side, second: Side) -> Row:
    one, other = (Interpretations.open(side.folders["interpretations"]) for side in (first, second))
    theirs = other.labels()
    pairs = [(label, theirs[unit]) for unit, label in one.labels().items() if unit in theirs]
    counts = {f"{a} / {b}": pairs.count((a, b)) for a, b in product(CLASSES, repeat=2)}
    names = {"first": f"{first.name}: {one.explainer()}", "second": f"{second.name}: {other.explainer()}"}
    return {**names, "units": len(pairs), "kappa": kappa(pairs), **counts}


def _frontier(sides: Sequence[Side]) -> list[Row]:
    """L0 against FVU, when the experiments have at least two different SAEs; those measured on the same compete."""
    found: dict[str, Row] = {}
    for side in (side for side in sides if "batchtopk_sae" in side.manifests):
        manifest = side.manifests["batchtopk_sae"]
        l0, fvu = manifest.at("held_out/l0"), manifest.at("held_out/fvu")
        if isinstance(l0, int | float) and isinstance(fvu, int | float):
            sae = side.sections["sae"]
            data = [manifest.inputs["activation_shards"], *(sae[name] for name in MEASURED_ON)]
            row = {"experiment": side.name, "k": sae["k"], "l0": l0, "fvu": fvu, "measured_on": digest("sae", data)[:8]}
            found.setdefault(manifest.key, row)
    rows = sorted(found.values(), key=lambda row: (row["l0"], row["fvu"]))
    for row in rows:
        row["dominated"] = any(
            other["measured_on"] == row["measured_on"]
            and (other["l0"], other["fvu"]) != (row["l0"], row["fvu"])
            and other["l0"] <= row["l0"]
            and other["fvu"] <= row["fvu"]
            for other in rows
        )
    return rows if len(rows) > 1 else []


def _parameters(sides: Sequence[Side]) -> list[Row]:
    rows: list[Row] = []
    for section, values in sides[0].sections.items():
        for name in values:
            found = [side.sections[section][name] for side in sides]
            if any(value != found[0] for value in found):
                shown = zip((side.name for side in sides), map(_shown, found), strict=True)
                rows.append({"parameter": f"{section}.{name}", **dict(shown)})
    return rows


def _shown(value: JsonValue) -> JsonValue:
    return written(value) if isinstance(value, bool | list | dict) else value


def _numbers(sides: Sequence[Side]) -> list[Row]:
    found = [dict(headlines(side.manifests)) for side in sides]
    labels = dict.fromkeys(label for numbers in found for label in numbers)
    rows: list[Row] = []
    for label in labels:
        values = [numbers.get(label) for numbers in found]
        row: Row = {"number": label, **{side.name: value for side, value in zip(sides, values, strict=True)}}
        if len(sides) == 2:
            row["delta"] = _delta(*values)
        rows.append(row)
    return rows


def _delta(first: JsonValue, second: JsonValue) -> float | None:
    if isinstance(first, int | float) and isinstance(second, int | float):
        return second - first
    return None


def headlines(manifests: Mapping[str, Manifest]) -> Iterable[tuple[str, JsonValue]]:
    """Label and number; recovery keeps its interval, as text."""
    for label, asset, place in SCALARS:
        value = manifests[asset].at(place) if asset in manifests else None
        if isinstance(value, int | float):
            yield label, value
    for label, asset, table, names, column in TABLES:
        for row in manifests[asset].rows(table) if asset in manifests else ():
            if row.get(column) is not None:
                yield f"{label}, {' '.join(str(row.get(name)) for name in names)}", row[column]
