"""What is read from the artifacts: whether a number has bounds, and whether the paper's explainer found it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.ablation.artifact import ABLATION, ABLATION_SCHEMA, ROLLOUT_SCHEMA, ROLLOUTS
from assets.benchmarks.artifact import PAIRS, RECOVERY, write
from assets.categories.artifact import CLASSES_FILE, CLASSES_SCHEMA
from assets.paper.claims import CLAIMS, Measurement, verdict
from assets.paper.evidence import COUNTERPARTS, measure
from resources.manifest import Manifest, read_manifest, write_manifest

Recovered = tuple[float, float | None, float | None]
BOUNDED: Recovered = (0.75, 0.5, 1.0)
CLASS_CLAIMS = (
    "latents_monosemantic",
    "latents_broad",
    "directions_monosemantic",
    "latents_over_directions",
    "directions_over_neurons",
)


def class_rows(explainer: str) -> list[dict]:
    shares = {("latent", 0): 0.5, ("latent", 1): 0.25, ("adapter", 0): 0.25, ("neuron", 0): 0.125}
    ends = {"explainer": explainer, "n": 8, "ci_low": 0.0, "ci_high": 0.75}
    return [{"kind": kind, "label": label, "share": share, **ends} for (kind, label), share in shares.items()]


def of_the_paper(name: str) -> str:
    """Its benchmark of this name."""
    return COUNTERPARTS[name][0]


def build_artifacts(
    folder: Path, recovered: dict[str, Recovered], explainer: str, benchmark: Callable[[str], str] = of_the_paper
) -> dict[str, Path]:
    """All that is measured in one folder, without scores and without ablations."""
    manifest = Manifest(
        asset="a", key="k", code_version=1, experiment="e", sections={}, section_versions={}, inputs={}, files={},
        metrics={}, columns=[], seconds=1, device="cpu", packages={}, created="",
    )  # fmt: skip
    write_manifest(folder, manifest)
    rows = [
        {"benchmark": benchmark(name), "arm": "lora", "recovery": value, "ci_low": low, "ci_high": high}
        for name, (value, low, high) in recovered.items()
    ]
    write(folder / "recovery.parquet", rows, RECOVERY)
    write(folder / "pairs.parquet", [], PAIRS)
    write(folder / ABLATION, [{"unit_kind": kind, "unit": kind} for kind in ("attention", "mlp")], ABLATION_SCHEMA)
    write(folder / ROLLOUTS, [], ROLLOUT_SCHEMA)
    pq.write_table(pa.Table.from_pylist(class_rows(explainer), schema=CLASSES_SCHEMA), folder / CLASSES_FILE)
    assets = ("lora_checkpoint", "benchmark_scores", "ablation_kl", "batchtopk_sae", "category_densities")
    return dict.fromkeys(assets, folder)


def test_a_recovered_gain_with_null_ends_has_no_bounds(tmp_path: Path) -> None:
    found = measure(build_artifacts(tmp_path, {"hard": BOUNDED, "choice": (0.875, None, None)}, "openai/x"))
    assert found["recovery_hard"] == Measurement(0.75, 0.5, 1.0, "benchmark_scores")
    assert found["recovery_choice"] == Measurement(0.875, None, None, "benchmark_scores", unbounded=True)
    assert found["recovery_medium"] is None
    assert found["recovery_least"] is None


def test_a_gain_on_a_benchmark_that_stands_in_for_the_papers_is_not_compared_with_its_number(tmp_path: Path) -> None:
    recovered = dict.fromkeys(COUNTERPARTS, BOUNDED)
    found = measure(build_artifacts(tmp_path, recovered, "openai/x", lambda name: f"mini_{name}"))
    verdicts = {claim.id: verdict(claim, found[claim.id], comparable=True) for claim in CLAIMS}
    assert {verdicts[f"recovery_{name}"] for name in COUNTERPARTS} == {"not comparable"}
    assert verdicts["recovery_least"] == "undecided"  # [50 %, 100 %] reaches over 70 %


def on_rollout(rollout: int, kind: str, unit: str, kl: float, tokens: int = 8) -> dict:
    return {"unit_kind": kind, "unit": unit, "rollout_id": rollout, "kl_sum": kl, "n_tokens": tokens}


def test_the_adapters_share_live_latents_and_the_kl_of_both_blocks_are_read_as_they_are(tmp_path: Path) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    ids = ("adapter_share", "sae_live", "mlp_over_attention_kl")
    assert [measure(artifacts)[claim] for claim in ids] == [None, None, None]
    metrics = {"trainable_share": 0.00025, "live_latents": 1950}
    write_manifest(tmp_path, read_manifest(tmp_path).model_copy(update={"metrics": metrics}))
    rows = [on_rollout(0, kind, kind, kl) for kind, kl in (("attention", 0.5), ("mlp", 2.0), ("all", 3.0))]
    write(tmp_path / ROLLOUTS, rows, ROLLOUT_SCHEMA)
    assert [measure(artifacts)[claim] for claim in ids] == [
        Measurement(0.00025, None, None, "lora_checkpoint"),
        Measurement(1950, None, None, "batchtopk_sae"),
        Measurement(4.0, None, None, "ablation_kl", unbounded=True),  # one rollout says nothing of another one
    ]


def about(end: float) -> float:
    """One end of an interval, as a number that four digits of ours equal."""
    return cast("float", pytest.approx(end, rel=1e-4))


def test_one_kl_over_another_has_students_interval_from_the_spread_between_rollouts(tmp_path: Path) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    # attention in another order than mlp, and a rollout without a scored token
    sums = {"mlp": {0: 2.0, 1: 8.0, 2: 0.0}, "attention": {2: 0.0, 1: 4.0, 0: 4.0}}
    rows = [on_rollout(i, kind, kind, kl, 0 if i == 2 else 8) for kind, of in sums.items() for i, kl in of.items()]
    write(tmp_path / ROLLOUTS, rows, ROLLOUT_SCHEMA)
    found = measure(artifacts)["mlp_over_attention_kl"]
    # 10/8; residuals 2 - 5 and 8 - 5 give an error of 0.75; Student's 97.5 % quantile with one degree is 12.7062
    # of the logarithm, whose error is 0.75 / 1.25
    spread = math.exp(12.7062 * 0.75 / 1.25)
    assert found == Measurement(1.25, about(1.25 / spread), about(1.25 * spread), "ablation_kl")


@pytest.mark.parametrize("attention", [(1.0, 1.0, 1.0), (1.0, -1.0, 1e-3)])
def test_a_kl_over_one_that_is_rounding_or_that_is_equal_in_all_rollouts_decides_nothing(
    tmp_path: Path, attention: tuple[float, ...]
) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    rows = [
        on_rollout(i, kind, kind, kl)
        for i, kl in enumerate(attention)
        for kind, kl in (("attention", kl), ("mlp", 2.0))
    ]
    write(tmp_path / ROLLOUTS, rows, ROLLOUT_SCHEMA)
    claim = next(claim for claim in CLAIMS if claim.id == "mlp_over_attention_kl")
    assert verdict(claim, measure(artifacts)["mlp_over_attention_kl"], comparable=True) == "not bounded"


def pair(benchmark: str, first: str, second: str, difference: tuple[float, float, float]) -> dict:
    ends = dict(zip(("difference", "ci_low", "ci_high"), difference, strict=True))
    return {"benchmark": benchmark, "first": first, "second": second, **ends}


def test_a_benchmark_of_ones_own_does_not_enter_the_claim_on_table_2(tmp_path: Path) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    rows = [
        pair(name, "attention_ablated", "mlp_ablated", (mlp, mlp, mlp))
        for name, mlp in (("openai_math", -0.25), ("mine", 0.75))
    ]
    for found, wanted in ((rows, 0.25), (rows[1:], None)):
        write(tmp_path / "pairs.parquet", found, PAIRS)
        measured = measure(artifacts)["mlp_over_attention_score"]
        assert (measured.value if measured else None) == wanted


def test_the_claim_on_table_2_has_an_interval_whichever_arm_was_asked_first(tmp_path: Path) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    rows = [
        pair("openai_math", "attention_ablated", "mlp_ablated", (-0.5, -0.875, -0.125)),
        pair("aime24_nofigures", "mlp_ablated", "attention_ablated", (0.25, 0.0, 0.75)),
        pair("aime24_nofigures", "lora", "attention_ablated", (-1.0, -1.0, -1.0)),
    ]
    write(tmp_path / "pairs.parquet", rows, PAIRS)
    # .5 [.125, .875] and .25 [0, .75]: half the root of .375^2 + .25^2 down, of .375^2 + .5^2 up
    ends = (0.375 - math.hypot(0.375, 0.25) / 2, 0.375 + 0.3125)
    assert measure(artifacts)["mlp_over_attention_score"] == Measurement(0.375, *ends, "benchmark_scores")


@pytest.mark.parametrize("block", ["attention", "mlp"])
def test_an_adapter_without_attention_or_without_mlp_says_nothing_on_the_claim_on_table_2(
    tmp_path: Path, block: str
) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    # An arm that lacks what is not there is the adapter itself, the other one the base model.
    ablated = pair("openai_math", "attention_ablated", "mlp_ablated", (-0.5, -0.5, -0.5))
    write(tmp_path / "pairs.parquet", [ablated], PAIRS)
    write(tmp_path / ABLATION, [{"unit_kind": block, "unit": block}], ABLATION_SCHEMA)
    assert measure(artifacts)["mlp_over_attention_score"] is None


@pytest.mark.parametrize("unsure", [0.25, 1.5])
def test_the_least_of_three_gains_has_no_bounds_when_any_of_them_has_none(tmp_path: Path, unsure: float) -> None:
    recovered: dict[str, Recovered] = {"hard": BOUNDED, "medium": (0.875, 0.5, 1.0), "choice": (unsure, None, None)}
    found = measure(build_artifacts(tmp_path, recovered, "openai/x"))
    assert found["recovery_least"] == Measurement(min(unsure, 0.75), None, None, "benchmark_scores", unbounded=True)


def test_the_least_of_three_bounded_gains_may_be_any_that_reaches_as_low(tmp_path: Path) -> None:
    recovered: dict[str, Recovered] = {"hard": (0.875, 0.25, 1.5), "medium": BOUNDED, "choice": (1.0, 0.875, 1.25)}
    found = measure(build_artifacts(tmp_path, recovered, "openai/x"))
    assert found["recovery_least"] == Measurement(0.75, 0.25, 1.0, "benchmark_scores")


@pytest.mark.parametrize(("explainer", "as_published"), [("statistical", False), ("openai/gpt-5-mini", True)])
def test_classes_are_the_papers_kind_of_classes_only_when_an_llm_gave_them(
    tmp_path: Path, explainer: str, as_published: bool
) -> None:
    found = measure(build_artifacts(tmp_path, {}, explainer))
    values = {claim: one.value for claim, one in found.items() if one and claim in CLASS_CLAIMS}
    assert values == dict(zip(CLASS_CLAIMS, (0.5, 0.25, 0.25, 0.25, 0.125), strict=True))
    assert {one.as_published for claim, one in found.items() if one and claim in CLASS_CLAIMS} == {as_published}


def test_a_difference_of_shares_has_an_interval_where_both_shares_have_one(tmp_path: Path) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    found = measure(artifacts)["latents_over_directions"]
    # 1/2 [0, 3/4] minus 1/4 [0, 3/4]: down by the root of 1/2^2 + 1/2^2, up by that of 1/4^2 + 1/4^2
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(0.25 - 0.5**0.5), pytest.approx(0.25 + 0.125**0.5))
    rows = [row | {"ci_low": None} if row["kind"] == "latent" else row for row in class_rows("openai/x")]
    pq.write_table(pa.Table.from_pylist(rows, schema=CLASSES_SCHEMA), tmp_path / CLASSES_FILE)
    found = measure(artifacts)["latents_over_directions"]
    assert found is not None and (found.low, found.high) == (None, None)


def test_a_kind_of_which_no_unit_has_a_label_measures_nothing(tmp_path: Path) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    rows = [row for row in class_rows("openai/x") if row["kind"] != "adapter"]
    pq.write_table(pa.Table.from_pylist(rows, schema=CLASSES_SCHEMA), tmp_path / CLASSES_FILE)
    found = measure(artifacts)
    assert {claim for claim in CLASS_CLAIMS if found[claim] is None} == {
        "directions_monosemantic", "latents_over_directions", "directions_over_neurons",
    }  # fmt: skip


def test_gate_proj_is_compared_as_figure_3b_shows_it_by_single_components(tmp_path: Path) -> None:
    artifacts = build_artifacts(tmp_path, {}, "openai/x")
    kls = {("L0", "gate_proj"): 0.25, ("L1", "gate_proj"): 0.75, ("L0", "up_proj"): 0.125, ("L1", "up_proj"): 0.375}
    rows = [
        {"unit_kind": "component", "unit": f"{layer}.{p}", "projection": p, "kl_mean": kl, "n_components": 1}
        for (layer, p), kl in kls.items()
    ]
    # ablated in all layers at once, gate_proj is the weaker one
    rows += [
        {"unit_kind": "projection", "unit": p, "projection": p, "kl_mean": kl, "n_components": 2}
        for p, kl in (("gate_proj", 1.0), ("up_proj", 2.0))
    ]
    write(tmp_path / ABLATION, rows, ABLATION_SCHEMA)
    sums = [on_rollout(0, "component", f"{layer}.{p}", 8 * kl) for (layer, p), kl in kls.items()]
    write(tmp_path / ROLLOUTS, sums, ROLLOUT_SCHEMA)
    assert measure(artifacts)["gate_strongest"] == Measurement(2.0, None, None, "ablation_kl", unbounded=True)
    # (16 + 2) / (8 + 2); residuals 16 - 14.4 and 2 - 3.6 give an error of sqrt(2 x 5.12) / 10 = 0.32
    second = [on_rollout(1, "component", f"{layer}.{p}", 2.0) for layer, p in kls]
    write(tmp_path / ROLLOUTS, [row | {"kl_sum": 4 * row["kl_sum"]} for row in sums] + second, ROLLOUT_SCHEMA)
    spread = math.exp(12.7062 * 0.32 / 1.8)
    expected = Measurement(1.8, about(1.8 / spread), about(1.8 * spread), "ablation_kl")
    assert measure(artifacts)["gate_strongest"] == expected
    write(tmp_path / ROLLOUTS, sums[1:], ROLLOUT_SCHEMA)
    assert measure(artifacts)["gate_strongest"] is None
