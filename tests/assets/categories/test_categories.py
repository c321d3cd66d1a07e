"""Assignment by predicate kind, densities worked out by hand, and class comparisons against references."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom

from assets.categories.artifact import (
    CATEGORIES_FILE,
    CATEGORIES_SCHEMA,
    CLASSES_SCHEMA,
    DENSITIES_SCHEMA,
    Categories,
    Densities,
)
from assets.categories.categorise import categorise, category_row
from assets.categories.comparison import chi_squared, class_shares
from assets.categories.config import CategoriesConfig
from assets.categories.densities import _category_counts, _tests, density_rows, measure
from assets.categories.statistical import TAXONOMY, string_id
from assets.contexts.artifact import UNITS_FILE
from assets.interpretations.artifact import Predicate
from resources.errors import BadInput
from tests.assets.interpretations.conftest import COMPUTE, SILENT, Explained
from tests.shard_builders import build_shards

STATISTICAL = CategoriesConfig(provider="statistical")


@pytest.fixture(scope="module")
def categories(explained: Explained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("categories")
    categorise(
        categories=STATISTICAL,
        **explained.inputs,
        interpretations=explained.interpretations,
        out=out,
        progress=SILENT,
        compute=COMPUTE,
    )
    return out


def test_every_explained_unit_has_one_entry_of_the_taxonomy(categories: Path, explained: Explained) -> None:
    artifact = Categories.open(categories)
    assert artifact.table().schema.equals(CATEGORIES_SCHEMA)
    rows = artifact.table().to_pylist()
    assert len(rows) == explained.metrics.explained
    assert all(artifact.taxonomy().find(row["string_id"]) for row in rows)
    entries = {row["unit"]: row["subcategory"] for row in rows}
    assert entries["adapter:L0.q_proj:+"] == "capitalised_words"
    assert entries["adapter:L0.q_proj:-"] == "any_number"
    assert entries["neuron:L0.3:+"] == "after_something"
    assert entries["latent:4"] == "any_number"
    assert entries["latent:1"] in ("weak_rule", "no_predicate")


def test_the_taxonomy_has_seven_categories_with_unique_ids() -> None:
    ids = [entry.string_id for category in TAXONOMY.categories for entry in category.subcategories]
    assert len(TAXONOMY.categories) == 7
    assert len(set(ids)) == len(ids)
    assert all(TAXONOMY.find(each) for each in ids)
    assert TAXONOMY.find("99.1") is None


@pytest.mark.parametrize(
    ("first", "classes", "label", "entry"),
    [
        (("token", 3), ("operator",), 0, "operators"),
        (("class", 4), ("number",), 1, "any_number"),
        (("token", 3), ("number",), 0, "chosen_numbers"),
        (("block", 1), ("",), 1, "blocks"),
        (("token", 3), ("operator",), 2, "weak_rule"),
    ],
)
def test_a_predicate_names_its_entry(first: tuple[str, int], classes: tuple[str], label: int, entry: str) -> None:
    found = TAXONOMY.find(string_id(Predicate(first=first, classes=classes, words="x"), label))
    assert found is not None
    assert found[1].name == entry


def test_what_the_token_is_names_the_entry_before_what_stands_beside_it_and_no_predicate_names_one_too() -> None:
    both = Predicate(first=("previous", 1), join="and", second=("token", 3), classes=("number", "operator"), words="x")
    found = [TAXONOMY.find(string_id(predicate, 0)) for predicate in (both, None)]
    assert [entry and entry[1].name for entry in found] == ["operators", "no_predicate"]


def test_of_two_tokens_the_first_named_files_the_unit() -> None:
    either = Predicate(first=("token", 9), join="or", second=("token", 3), classes=("relation", "number"), words="x")
    entry = TAXONOMY.find(string_id(either, 1))
    assert entry is not None
    assert entry[1].name == "relations"


def test_an_id_outside_the_taxonomy_is_uncategorized() -> None:
    row = category_row({"unit": "latent:1", "kind": "latent"}, TAXONOMY, "42.7", "x", "unknown id 42.7")
    assert (row["category"], row["string_id"], row["detail"]) == ("uncategorized", "", "unknown id 42.7")


def test_nothing_explained_is_refused(tmp_path: Path, explained: Explained) -> None:
    table = pq.read_table(explained.interpretations / "interpretations.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "interpretations.parquet")
    with pytest.raises(BadInput, match="no unit"):
        categorise(
            categories=STATISTICAL,
            **explained.inputs,
            interpretations=tmp_path,
            out=tmp_path,
            progress=SILENT,
            compute=COMPUTE,
        )


def _assigned(unit: str, string_id: str, category: str) -> dict:
    return {"unit": unit, "kind": "latent", "string_id": string_id, "category": category, "subcategory": string_id}


def test_density_is_the_normalised_sum_of_activations() -> None:
    assigned = [
        _assigned("latent:1", "1.1", "a"), _assigned("latent:2", "1.2", "a"),
        _assigned("latent:3", "2.1", "b"), _assigned("latent:4", "", "uncategorized"),
    ]  # fmt: skip
    rows = density_rows(assigned, {"latent:1": 6.0, "latent:2": 2.0, "latent:3": 12.0, "latent:4": 100.0})
    assert [(row["string_id"], row["density"], row["share"]) for row in rows] == [
        ("1.1", 6.0, 0.3), ("1.2", 2.0, 0.1), ("2.1", 12.0, 0.6),
    ]  # fmt: skip
    assert [row["unit_share"] for row in rows] == pytest.approx([1 / 3] * 3)


def test_units_in_a_category_that_a_model_called_uncategorized_are_categorized() -> None:
    assigned = [_assigned("latent:1", "1.1", "a"), _assigned("latent:2", "2.1", "uncategorized")]
    rows = density_rows(assigned, {"latent:1": 1.0, "latent:2": 3.0})
    assert [(row["category"], row["share"], row["unit_share"]) for row in rows] == [
        ("a", 0.25, 0.5), ("uncategorized", 0.75, 0.5),
    ]  # fmt: skip


def test_kinds_and_entries_stand_in_order_and_units_that_never_fire_have_no_share() -> None:
    assigned = [_assigned(f"latent:{number}", entry, "a") for number, entry in enumerate(("2.10", "2.9", "1.1"))]
    assigned.append({**_assigned("adapter:L0.q_proj:+", "1.1", "a"), "kind": "adapter"})
    rows = density_rows(assigned, {row["unit"]: 0.0 for row in assigned})
    assert [(row["kind"], row["string_id"], row["share"]) for row in rows] == [
        ("adapter", "1.1", 0.0), ("latent", "1.1", 0.0), ("latent", "2.9", 0.0), ("latent", "2.10", 0.0),
    ]  # fmt: skip


def test_categories_are_counted_for_each_kind_in_one_order() -> None:
    assigned = [_assigned("latent:1", "2.1", "b"), _assigned("latent:2", "2.2", "b")]
    assigned += [
        {**_assigned("neuron:L0.1:+", entry, name), "kind": "neuron"} for entry, name in (("2.1", "b"), ("1.1", "a"))
    ]
    assert {kind: counts.tolist() for kind, counts in _category_counts(assigned).items()} == {
        "latent": [0, 2], "neuron": [1, 1],
    }  # fmt: skip


def test_every_two_kinds_are_tested_once_and_those_of_one_category_not_at_all() -> None:
    counts = {"b": np.array([3, 4]), "c": np.array([5, 0]), "a": np.array([1, 0])}
    assert [(row["first"], row["second"]) for row in _tests(counts)] == [("a", "b"), ("b", "c")]


def test_the_interval_of_a_class_share_holds_the_true_share_of_few_units_95_times_of_100() -> None:
    # of 28 units, as many as a kind of the mini world has components, from a share of 4 % to one of 96 %
    n, shares = 28, np.linspace(0.04, 0.96, 93)
    found = [
        class_shares([{"kind": "latent", "explainer": "x", "label": int(i >= k)} for i in range(n)])[0]
        for k in range(n + 1)
    ]
    held = np.array([[row["ci_low"] <= share <= row["ci_high"] for row in found] for share in shares])
    covered = (binom.pmf(np.arange(n + 1), n, shares[:, None]) * held).sum(1)
    assert covered.mean() == pytest.approx(0.95, abs=0.01)
    assert covered.min() > 0.9


def test_chi_squared_of_the_authors_committed_counts() -> None:
    # LoRA n=367 16.1/39.8/44.1 %, MLP n=376 13.0/26.6/60.4 % (the authors' CSV), by Pearson's sum by hand.
    lora, mlp = np.array([59, 146, 162]), np.array([49, 100, 227])
    total = lora + mlp
    by_hand = sum(
        ((row - total * row.sum() / total.sum()) ** 2 / (total * row.sum() / total.sum())).sum() for row in (lora, mlp)
    )
    found = chi_squared(lora, mlp)
    assert found is not None
    assert found["chi2"] == pytest.approx(by_hand)
    # with two degrees of freedom the chance of more than x is e^(-x / 2)
    assert (found["degrees_of_freedom"], found["p"]) == (2, pytest.approx(np.exp(-by_hand / 2)))
    assert chi_squared(np.array([3, 0]), np.array([5, 0])) is None
    assert chi_squared(np.array([0, 0]), np.array([5, 1])) is None


def test_chi_squared_of_two_classes_has_no_correction_and_counts_a_class_of_one_unit() -> None:
    """n (ad - bc)² over the product of the four sums, at one degree of freedom."""
    found = chi_squared(np.array([1, 3]), np.array([0, 5]))
    assert found is not None
    assert (found["chi2"], found["degrees_of_freedom"]) == (pytest.approx(9 * 5**2 / (4 * 5 * 1 * 8)), 1)


def test_class_shares_leave_out_units_without_a_label() -> None:
    rows = [{"kind": "latent", "explainer": "x", "label": label} for label in (0, 0, 1, 2, None)]
    shares = class_shares(rows)
    assert [(row["n"], row["share"]) for row in shares] == [(2, 0.5), (1, 0.25), (1, 0.25)]
    shares = class_shares([*rows, {"kind": "adapter", "explainer": "x", "label": 2}])
    assert [(row["kind"], row["n"], row["share"]) for row in shares] == [
        ("adapter", 0, 0.0), ("adapter", 0, 0.0), ("adapter", 1, 1.0),
        ("latent", 2, 0.5), ("latent", 1, 0.25), ("latent", 1, 0.25),
    ]  # fmt: skip


def test_a_class_of_none_or_all_of_few_units_is_not_certain() -> None:
    """0 and 4 of 4: Wilson's interval, z²/(n + z²) wide."""
    shares = class_shares([{"kind": "adapter", "explainer": "x", "label": 2}] * 4)
    assert [row["ci_low"] for row in shares] == pytest.approx([0, 0, 0.5101], abs=1e-4)
    assert [row["ci_high"] for row in shares] == pytest.approx([0.4899, 0.4899, 1], abs=1e-4)


def test_a_kind_of_which_no_unit_has_a_label_has_no_shares() -> None:
    unlabelled = {"kind": "adapter", "explainer": "x", "label": None}
    shares = class_shares([unlabelled, {"kind": "latent", "explainer": "x", "label": 0}])
    assert {row["kind"] for row in shares} == {"latent"}


def _measure(explained: Explained, categories: Path, out: Path, knobs: CategoriesConfig, shards: Path) -> Densities:
    metrics = measure(
        categories=knobs,
        feature_categories=categories,
        interpretations=explained.interpretations,
        max_activating_contexts=explained.contexts,
        activation_shards=shards,
        neuron_shards=shards,
        batchtopk_sae=shards,
        out=out,
        progress=SILENT,
    )
    assert json.loads(metrics.model_dump_json())["densities"]
    return Densities.open(out)


def test_densities_and_figures_are_written(explained: Explained, categories: Path, tmp_path: Path) -> None:
    artifact = _measure(explained, categories, tmp_path, STATISTICAL, tmp_path)
    assert artifact.table().schema.equals(DENSITIES_SCHEMA)
    assert artifact.classes().schema.equals(CLASSES_SCHEMA)
    for kind in ("adapter", "neuron", "latent"):
        shares = [row["share"] for row in artifact.table().to_pylist() if row["kind"] == kind]
        assert sum(shares) == pytest.approx(1)
        assert (tmp_path / "charts" / f"figure_2_{kind}.png").stat().st_size > 1000
        figure = json.loads((tmp_path / "charts" / f"figure_2_{kind}.vl.json").read_text())
        assert {row["kind"] for row in figure["layer"][1]["data"]["values"]} == {kind}
    assert (tmp_path / "charts" / "figure_1_classes.svg").exists()


def test_densities_of_some_rollouts_are_summed_from_the_shards_and_say_of_how_many(
    explained: Explained,
    categories: Path,
    tmp_path: Path,
) -> None:
    mine = pq.read_table(categories / CATEGORIES_FILE).filter(pc.field("kind") == "adapter")
    for name in ("categories", "contexts", "out"):
        (tmp_path / name).mkdir()
    pq.write_table(mine, tmp_path / "categories" / CATEGORIES_FILE)
    units = pa.table({"unit": mine["unit"], "threshold": pa.array([0.5] * len(mine), pa.float32())})
    pq.write_table(units, tmp_path / "contexts" / UNITS_FILE)
    # Three rollouts, each 2 on the positive side and 1 on the negative one; 0.25 is not firing.
    states = {rollout: np.array([[2.0], [-1.0], [0.25]]) for rollout in range(3)}
    shards = build_shards(tmp_path / "shards", states, ("L0.q_proj",))
    metrics = measure(
        categories=STATISTICAL.model_copy(update={"rollouts": 2}),
        feature_categories=tmp_path / "categories",
        interpretations=explained.interpretations,
        max_activating_contexts=tmp_path / "contexts",
        activation_shards=shards,
        neuron_shards=tmp_path,
        batchtopk_sae=tmp_path,
        out=tmp_path / "out",
        progress=SILENT,
    )
    assert metrics.rollouts == "2"
    assert [(row["subcategory"], row["density"]) for row in metrics.densities] == [
        ("capitalised_words", 4.0), ("any_number", 2.0),
    ]  # fmt: skip
    assert [row["share"] for row in metrics.densities] == pytest.approx([2 / 3, 1 / 3])
