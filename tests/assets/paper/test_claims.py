"""What counts as reproduced, as a pattern, and as not comparable."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import JsonValue

from assets.interpretations.artifact import INTERPRETATIONS_FILE, INTERPRETATIONS_SCHEMA
from assets.paper.claims import CLAIMS, Claim, Measurement, spoken, verdict
from assets.paper.comparison import Side, compare
from assets.paper.report import claim_rows, is_papers_model, metrics
from assets.sae.config import SaeConfig

NUMBER = Claim("n", "Table 1", "a number", 0.62, tolerance=0.05)
PATTERN = Claim("p", "Figure 3", "a ratio", None, threshold=1.0)


def measured(value: float, low: float | None = None, high: float | None = None) -> Measurement:
    return Measurement(value, low, high, "ablation_kl")


@pytest.mark.parametrize(
    ("measurement", "comparable", "expected"),
    [
        (measured(0.60), True, "reproduced"),  # 0.60 ± 0.05 holds 0.62
        (measured(0.56), True, "differs"),
        (measured(0.50, 0.40, 0.63), True, "reproduced"),  # the interval holds 0.62
        (measured(0.60, 0.58, 0.61), True, "differs"),  # an interval goes before the tolerance
        (measured(0.65, 0.62, 0.70), True, "reproduced"),  # the ends belong to an interval
        (measured(0.60, 0.50, 0.62), True, "reproduced"),
        (measured(0.62), False, "not comparable"),
        (None, True, "not measured"),
        (None, False, "not measured"),
    ],
)
def test_a_number_is_judged_by_its_interval_else_by_the_tolerance(
    measurement: Measurement | None, comparable: bool, expected: str
) -> None:
    assert verdict(NUMBER, measurement, comparable) == expected


@pytest.mark.parametrize(
    ("value", "comparable", "expected"),
    [
        (1.2, True, "reproduced"),
        (0.9, True, "differs"),
        (1.2, False, "same pattern"),
        (0.9, False, "pattern differs"),
        (1.0, False, "pattern differs"),  # equal is no order
    ],
)
def test_a_pattern_holds_only_above_its_threshold(value: float, comparable: bool, expected: str) -> None:
    assert verdict(PATTERN, measured(value), comparable) == expected


@pytest.mark.parametrize(
    ("measurement", "comparable", "expected"),
    [
        (measured(1.2, 1.1, 1.3), True, "reproduced"),
        (measured(0.9, 0.8, 1.0), True, "differs"),  # equal is no order
        (measured(1.2, 1.1, 1.3), False, "same pattern"),
        (measured(0.9, 0.8, 1.0), False, "pattern differs"),
        *(
            (measured(value, 0.9, 1.1), comparable, "undecided")
            for value in (0.95, 1.05)
            for comparable in (True, False)
        ),
        (measured(1.1, 1.0, 1.2), True, "undecided"),
    ],
)
def test_a_pattern_is_undecided_while_its_interval_reaches_over_the_threshold(
    measurement: Measurement, comparable: bool, expected: str
) -> None:
    assert verdict(PATTERN, measurement, comparable) == expected


@pytest.mark.parametrize("value", [0.899, 0.9, 0.85, 0.95])
def test_a_number_without_bounds_decides_nothing_however_near_the_published_one_it_lies(value: float) -> None:
    recovered = Claim("r", "Table 1", "recovered gain", 0.899)
    found = Measurement(value, None, None, "benchmark_scores", unbounded=True)
    assert verdict(recovered, found, True) == "not bounded"
    assert verdict(recovered, found, False) == "not comparable"


@pytest.mark.parametrize("comparable", [True, False])
def test_a_pattern_is_not_judged_on_a_number_without_bounds(comparable: bool) -> None:
    found = Measurement(1.2, None, None, "benchmark_scores", unbounded=True)
    assert verdict(PATTERN, found, comparable) == "not bounded"


def test_what_the_paper_measured_otherwise_has_no_comparable_number_on_its_own_model_but_a_pattern() -> None:
    found = Measurement(0.62, 0.6, 0.64, "category_densities", as_published=False)
    assert verdict(NUMBER, found, True) == "not comparable"
    assert verdict(Claim("p", "Figure 1", "a difference", None), found, True) == "same pattern"


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("Qwen/Qwen2.5-32B-Instruct", True),
        ("/models/Qwen2.5-32B-Instruct", True),
        ("models/Qwen2.5-32B-Instruct/", True),
        # The hub's cache names a snapshot after its commit.
        ("/hub/models--Qwen--Qwen2.5-32B-Instruct/snapshots/5ede1c97bbab6ce5cda5812749b4c0bdf79b18dd", True),
        ("/hub/models--Qwen--Qwen2.5-32B-Instruct/snapshots/0000000000000000000000000000000000000000", False),
        ("/models/Qwen2.5-32B", False),
        ("/models/Qwen2.5-32B-Instruct/tuned", False),
        ("Qwen/Qwen2.5-7B-Instruct", False),
        ("resources/mini_world/model", False),
    ],
)
def test_the_papers_model_is_known_by_the_last_part_of_its_name_wherever_it_lies(name: str, same: bool) -> None:
    assert is_papers_model(name) is same


def test_every_claim_is_counted_once_as_reproduced_differing_or_open() -> None:
    found: dict[str, Measurement | None] = {claim.id: None for claim in CLAIMS}
    found |= {
        "recovery_choice": Measurement(0.9, None, None, "a", unbounded=True),
        "latents_broad": Measurement(0.22, None, None, "a", as_published=False),
        "sae_live": measured(1950),
        "gate_strongest": measured(0.8),
        "mlp_over_attention_kl": measured(1.1, 0.9, 1.3),
    }
    counted = metrics(claim_rows(found, comparable=True))
    assert (counted.reproduced, counted.differing, counted.open) == (1, 1, 12)


def test_every_claim_has_its_own_id_and_a_place_in_the_paper() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert all(claim.where and claim.statement for claim in CLAIMS)


def test_every_claim_is_answered_by_the_evidence() -> None:
    import inspect

    from assets.paper import evidence

    source = inspect.getsource(evidence.measure)
    for claim in CLAIMS:
        assert f'"{claim.id}"' in source or claim.id.startswith("recovery_"), claim.id
    assert {f"recovery_{name}" for name in evidence.COUNTERPARTS} <= {claim.id for claim in CLAIMS}


def test_rows_carry_what_the_paper_says_as_a_person_reads_it() -> None:
    rows = {row["id"]: row for row in claim_rows({claim.id: None for claim in CLAIMS}, comparable=True)}
    assert rows["latents_monosemantic"]["expected"] == "62 %"
    assert rows["recovery_hard"]["expected"] == "72.7 %"
    assert rows["sae_live"]["expected"] == "2,000"
    assert rows["recovery_least"]["expected"] == "above 70 %"
    assert spoken(0.123456) == "0.1235"
    assert [spoken(value) for value in (9999.6, 10_000.0, -12_345.6)] == ["10,000", "10,000", "-12,346"]


def test_a_comparison_names_only_parameters_that_differ_and_gives_the_delta() -> None:
    from resources.manifest import Manifest

    def side(name: str, rate: float, **numbers: float) -> Side:
        manifest = Manifest(
            asset="ablation_kl", key="k", code_version=1, experiment=name, sections={}, section_versions={}, inputs={},
            files={}, metrics={**numbers}, columns=[], seconds=1, device="cpu", packages={}, created="",
        )  # fmt: skip
        return Side(name, {"lora": {"learning_rate": rate, "epochs": 3}}, {"ablation_kl": manifest})

    found = compare([side("a", 0.1, kl_all=2.0, kl_mlp=1.0), side("b", 0.2, kl_all=2.5, kl_attention=0.5)])
    assert found.parameters == [{"parameter": "lora.learning_rate", "a": 0.1, "b": 0.2}]
    assert found.numbers == [
        {"number": "KL, all components", "a": 2.0, "b": 2.5, "delta": 0.5},
        {"number": "KL, MLP", "a": 1.0, "b": None, "delta": None},
        {"number": "KL, attention", "a": None, "b": 0.5, "delta": None},
    ]


def test_a_comparison_writes_knobs_as_an_experiments_file_does() -> None:
    def side(name: str, **knobs: JsonValue) -> Side:
        return Side(name, {"lora": knobs}, {})

    first = side("a", projections=["q_proj", "o_proj"], rslora=True, layers=None, units=[], seed=1)
    second = side("b", projections=["q_proj"], rslora=False, layers=[1, 2], units=["latent:3"], seed=2)
    assert [(row["a"], row["b"]) for row in compare([first, second]).parameters] == [
        ("q_proj, o_proj", "q_proj"),
        ("true", "false"),
        (None, "1, 2"),
        ("[]", "latent:3"),
        (1, 2),
    ]


def test_saes_of_a_comparison_stand_from_the_sparsest_and_one_that_another_beats_is_marked() -> None:
    from resources.manifest import Manifest

    def side(name: str, key: str, k: int, l0: float, fvu: float | None, states: str = "s", **knobs: object) -> Side:
        manifest = Manifest(
            asset="batchtopk_sae", key=key, code_version=1, experiment=name, sections={}, section_versions={},
            inputs={"activation_shards": states}, files={}, metrics={"held_out": {"l0": l0, "fvu": fvu}}, columns=[],
            seconds=1, device="cpu", packages={}, created="",
        )  # fmt: skip
        sae = SaeConfig(k=k).model_copy(update=knobs).model_dump(mode="json")
        return Side(name, {"sae": sae}, {"batchtopk_sae": manifest})

    sides = [side("a", "x", 8, 8.0, 0.2), side("b", "y", 4, 4.0, 0.4), side("c", "z", 9, 8.5, 0.3)]
    same = side("d", "x", 8, 8.0, 0.2)
    rows = compare([*sides, same]).frontier
    assert len({row.pop("measured_on") for row in rows}) == 1
    assert rows == [
        {"experiment": "b", "k": 4, "l0": 4.0, "fvu": 0.4, "dominated": False},
        {"experiment": "a", "k": 8, "l0": 8.0, "fvu": 0.2, "dominated": False},
        {"experiment": "c", "k": 9, "l0": 8.5, "fvu": 0.3, "dominated": True},
    ]
    assert compare([sides[0], same]).frontier == []
    other = partial(side, "c", "z", 9, 8.5, 0.3)
    of_others = other(states="other"), other(layers=(3,)), other(projections=("q_proj",)), other(held_out_seed=1)
    for of_other_numbers in of_others:
        assert not any(row["dominated"] for row in compare([sides[0], of_other_numbers]).frontier)
    of_another_seed = other(seed=1)
    assert [row["dominated"] for row in compare([sides[0], of_another_seed]).frontier] == [False, True]
    for as_good_in_one in (side("c", "z", 8, 8.0, 0.3), side("c", "z", 9, 8.5, 0.2)):
        assert [row["dominated"] for row in compare([sides[0], as_good_in_one]).frontier] == [False, True]
    assert compare([sides[0], side("c", "z", 9, 8.5, None)]).frontier == []  # measured on no token


def test_two_explainers_of_the_same_contexts_are_compared_by_kappa_and_confusion(tmp_path: Path) -> None:
    from resources.manifest import Manifest

    def side(name: str, explainer: str, contexts: str, labels: list[int | None]) -> Side:
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"unit": f"latent:{i}", "explainer": explainer, "label": label} for i, label in enumerate(labels)]
        pq.write_table(pa.Table.from_pylist(rows, schema=INTERPRETATIONS_SCHEMA), folder / INTERPRETATIONS_FILE)
        manifest = Manifest(
            asset="interpretations", key=name, code_version=1, experiment=name, sections={}, section_versions={},
            inputs={"max_activating_contexts": contexts}, files={}, metrics={"stability": 0.75}, columns=[], seconds=1,
            device="cpu", packages={}, created="",
        )  # fmt: skip
        return Side(name, {}, {"interpretations": manifest}, {"interpretations": folder})

    gpt = side("gpt", "openai/x", "c", [0, 0, 1, 1, None])
    claude = side("claude", "anthropic/y", "c", [0, 1, 1, 1, 2])
    fewer = side("fewer", "anthropic/y", "d", [0])
    nothing = side("nothing", "openai/x", "d", [None, 0])
    elsewhere = side("elsewhere", "anthropic/y", "other contexts", [0, 1, 1, 1, 2])
    found = compare([gpt, claude, elsewhere, gpt, fewer, nothing])
    cells = {f"{a} / {b}": 0 for a in range(3) for b in range(3)} | {"0 / 0": 1, "0 / 1": 1, "1 / 1": 2}
    assert found.agreement == [
        {"first": "gpt: openai/x", "second": "claude: anthropic/y", "units": 4, "kappa": 0.5, **cells}
    ]
    assert {row["number"] for row in found.numbers} == {"explanations, agreement of a further answer or half"}
