"""Our measurement for each claim of the paper, read from the artifacts' own tables; None where there is none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import hypot
from pathlib import Path
from statistics import fmean

from assets.ablation.artifact import AblationKl
from assets.benchmarks.artifact import BenchmarkScores
from assets.benchmarks.config import STAND_INS
from assets.categories.artifact import Densities
from assets.interpretations.config import STATISTICAL
from assets.paper.claims import Measurement
from resources.components import parse_component
from resources.intervals import difference, ratio, ratio_interval
from resources.manifest import read_manifest

COUNTERPARTS = {mini.removeprefix("mini_"): (papers, mini) for mini, papers in STAND_INS.items()}
"""The paper's three benchmarks, and the mini world's that stand in for them."""


def measure(artifacts: Mapping[str, Path]) -> dict[str, Measurement | None]:
    """Claim id -> measurement."""
    readers: dict[str, Callable[[Mapping[str, Path]], Measurement | None]] = {
        "adapter_share": _adapter_share,
        "mlp_over_attention_score": _mlp_over_attention_score,
        "mlp_over_attention_kl": _mlp_over_attention_kl,
        "gate_strongest": _gate_strongest,
        "recovery_least": _recovery_least,
        "sae_live": _sae_live,
        "latents_monosemantic": partial(_class_share, kind="latent", label=0),
        "latents_broad": partial(_class_share, kind="latent", label=1),
        "directions_monosemantic": partial(_class_share, kind="adapter", label=0),
        "latents_over_directions": partial(_difference, more="latent", less="adapter"),
        "directions_over_neurons": partial(_difference, more="adapter", less="neuron"),
        **{f"recovery_{name}": partial(_recovery, name=name) for name in COUNTERPARTS},
    }
    return {claim: read(artifacts) for claim, read in readers.items()}


def _adapter_share(artifacts: Mapping[str, Path]) -> Measurement | None:
    metrics = read_manifest(artifacts["lora_checkpoint"]).metrics
    share = metrics.get("trainable_share")
    return Measurement(share, None, None, "lora_checkpoint") if isinstance(share, float) and share else None


def _recovery(artifacts: Mapping[str, Path], name: str) -> Measurement | None:
    for row in BenchmarkScores.open(artifacts["benchmark_scores"]).recovery():
        if row["benchmark"] in COUNTERPARTS[name] and row["arm"] == "lora" and row["recovery"] is not None:
            low, high = row["ci_low"], row["ci_high"]
            own = row["benchmark"] == COUNTERPARTS[name][0]
            return Measurement(row["recovery"], low, high, "benchmark_scores", unbounded=low is None, as_published=own)
    return None


def _recovery_least(artifacts: Mapping[str, Path]) -> Measurement | None:
    found = [_recovery(artifacts, name) for name in COUNTERPARTS]
    known = [measurement for measurement in found if measurement is not None]
    if len(known) < len(COUNTERPARTS):
        return None
    return _least(known)


def _least(known: Sequence[Measurement]) -> Measurement:
    """The least of several; which one is least in truth is not known, and with 30 questions another one often is."""
    least = min(known, key=lambda one: one.value)
    least = replace(least, as_published=all(one.as_published for one in known))
    lows, highs = [one.low for one in known if one.low is not None], [one.high for one in known if one.high is not None]
    if len(lows) < len(known) or len(highs) < len(known):
        return replace(least, low=None, high=None, unbounded=any(one.unbounded for one in known))
    return replace(least, low=min(lows), high=min(highs))


def _mlp_over_attention_score(artifacts: Mapping[str, Path]) -> Measurement | None:
    """Mean over Table 2's benchmarks of (score without attention adapters - score without MLP adapters).

    They are independent, so that the ends add up as Newcombe's do. None for an adapter that has only one of the two:
    without the other one it is itself.
    """
    ablated = {row["unit_kind"] for row in AblationKl.open(artifacts["ablation_kl"]).table().to_pylist()}
    twins = {*STAND_INS, *STAND_INS.values()}
    known: dict[str, tuple[float, float, float]] = {}
    for row in BenchmarkScores.open(artifacts["benchmark_scores"]).pairs():
        if row["benchmark"] in twins and {row["first"], row["second"]} == {"attention_ablated", "mlp_ablated"}:
            middle, low, high = row["difference"], row["ci_low"], row["ci_high"]  # second minus first
            reverse = row["second"] == "mlp_ablated"
            known[row["benchmark"]] = (-middle, -high, -low) if reverse else (middle, low, high)
    if not known or not {"attention", "mlp"} <= ablated:
        return None
    value = fmean(middle for middle, _, _ in known.values())
    down = hypot(*(middle - low for middle, low, _ in known.values())) / len(known)
    up = hypot(*(high - middle for middle, _, high in known.values())) / len(known)
    own = known.keys() <= {*STAND_INS.values()}
    return Measurement(value, value - down, value + up, "benchmark_scores", as_published=own)


def _kl_sums(artifacts: Mapping[str, Path]) -> dict[tuple[str, str], list[float]]:
    """(unit kind, unit) -> its KL summed over the tokens of each rollout, in the rollouts' order."""
    rows = AblationKl.open(artifacts["ablation_kl"]).rollouts().sort_by("rollout_id").to_pylist()
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["n_tokens"]:
            found.setdefault((row["unit_kind"], row["unit"]), []).append(row["kl_sum"])
    return found


def _over(tops: Sequence[float], bottoms: Sequence[float]) -> Measurement:
    """One KL over another, with an interval from the spread between rollouts, where there is one."""
    found = ratio(tops, bottoms)
    low, high = ratio_interval(found, len(tops))
    return Measurement(found.value, low, high, "ablation_kl", unbounded=low is None)


def _mlp_over_attention_kl(artifacts: Mapping[str, Path]) -> Measurement | None:
    sums = _kl_sums(artifacts)
    mlp, attention = sums.get(("mlp", "mlp")), sums.get(("attention", "attention"))
    return _over(mlp, attention) if mlp and attention and any(attention) else None


def _gate_strongest(artifacts: Mapping[str, Path]) -> Measurement | None:
    """From the mean over layers of single components' KL; None where one of them was not ablated alone."""
    rows = AblationKl.open(artifacts["ablation_kl"]).table().to_pylist()
    size = {row["unit"]: row["n_components"] for row in rows if row["unit_kind"] == "projection"}
    singles: dict[str, list[list[float]]] = {name: [] for name in size}
    for (kind, unit), sums in _kl_sums(artifacts).items():
        if kind == "component" and (name := parse_component(unit).projection) in size:
            singles[name].append(sums)
    if any(len(found) < size[name] for name, found in singles.items()):
        return None
    means = {name: [fmean(layers) for layers in zip(*found, strict=True)] for name, found in singles.items()}
    gate, others = means.pop("gate_proj", None), [other for other in means.values() if any(other)]
    return _least([_over(gate, other) for other in others]) if gate and others else None


def _sae_live(artifacts: Mapping[str, Path]) -> Measurement | None:
    metrics = read_manifest(artifacts["batchtopk_sae"]).metrics
    live = metrics.get("live_latents")
    return Measurement(float(live), None, None, "batchtopk_sae") if isinstance(live, int) else None


def _class_share(artifacts: Mapping[str, Path], kind: str, label: int) -> Measurement | None:
    for row in Densities.open(artifacts["category_densities"]).classes().to_pylist():
        if row["kind"] == kind and row["label"] == label:
            by_llm = row["explainer"] != STATISTICAL
            return Measurement(row["share"], row["ci_low"], row["ci_high"], "category_densities", as_published=by_llm)
    return None


def _difference(artifacts: Mapping[str, Path], more: str, less: str) -> Measurement | None:
    """Share of class 0 among `more` minus that among `less`."""
    first, second = _class_share(artifacts, more, 0), _class_share(artifacts, less, 0)
    if first is None or second is None:
        return None
    minuend, subtrahend = _bounded(first), _bounded(second)
    low, high = difference(minuend, subtrahend) if minuend and subtrahend else (None, None)
    return replace(first, value=first.value - second.value, low=low, high=high)


def _bounded(measured: Measurement) -> tuple[float, float, float] | None:
    if measured.low is None or measured.high is None:
        return None
    return measured.value, measured.low, measured.high
