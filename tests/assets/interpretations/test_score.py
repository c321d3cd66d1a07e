"""Scores are measured on rollouts that no explainer saw, with negatives that bear the same token."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.interpretations.artifact import CLASSES, FAMILIES, SCORES_SCHEMA, Predicate, Scores
from assets.interpretations.config import ScoresConfig
from assets.interpretations.corpus import Corpus
from assets.interpretations.evidence import HALF_A, HALF_B, HELD_OUT, Evidence, draw_parts, read_evidence
from assets.interpretations.score import ScoreMetrics, score, summary
from assets.interpretations.token_detection import _Drawn, _draws, _measured, precision, score_predicate
from tests.assets.interpretations.conftest import COMPUTE, SILENT, STATISTICAL, Explained


@pytest.fixture(scope="module")
def scored(explained: Explained, tmp_path_factory: pytest.TempPathFactory) -> tuple[ScoreMetrics, dict[str, dict]]:
    out = tmp_path_factory.mktemp("scores")
    metrics = score(
        scores=ScoresConfig(),
        **explained.inputs,
        interpretations=explained.interpretations,
        out=out,
        progress=SILENT,
        compute=COMPUTE,
    )
    table = pq.read_table(out / "scores.parquet")
    assert table.schema.equals(SCORES_SCHEMA)
    return metrics, {row["unit"]: row for row in table.to_pylist()}


@pytest.mark.parametrize("unit", ["adapter:L0.q_proj:+", "adapter:L0.q_proj:-", "neuron:L0.3:+", "latent:4"])
def test_a_true_predicate_scores_one(scored: tuple[ScoreMetrics, dict[str, dict]], unit: str) -> None:
    row = scored[1][unit]
    assert row["balanced_accuracy"] == 1.0
    assert row["ci_low"] > 0.7
    assert row["draws"] >= 2


def test_random_firing_scores_like_chance(scored: tuple[ScoreMetrics, dict[str, dict]]) -> None:
    row = scored[1]["latent:1"]
    assert row["status"] == "insufficient" or row["ci_low"] < 0.5 < row["ci_high"]


def test_a_unit_that_never_fires_is_listed_with_its_reason(
    scored: tuple[ScoreMetrics, dict[str, dict]], explained: Explained
) -> None:
    row = scored[1]["latent:3"]
    assert (row["status"], row["balanced_accuracy"]) == ("insufficient", None)
    assert row["detail"] == explained.row("latent:3")["detail"] != ""
    assert set(scored[1]) == set(explained.world.units)
    assert (scored[0].insufficient, scored[0].failed) == (sum(r["status"] != "ok" for r in scored[1].values()), 0)
    assert (scored[0].requests, scored[0].cached, scored[0].cost_usd) == (0, 0, 0.0)


def test_same_token_negatives_lower_the_precision(explained: Explained) -> None:
    corpus = Corpus.open(explained.dataset)
    every = {e.unit: e for e in read_evidence(explained.contexts, corpus, STATISTICAL)}
    # latent:4 fires on a digit after " ="; told only "any number", digits elsewhere must count against it.
    digits = Predicate(first=("class", 4), classes=("number",), words="any number")
    row = score_predicate(every["latent:4"], digits, corpus, ScoresConfig(), 42)
    assert row["sensitivity"] == 1.0
    assert row["precision_hard"] == 0.5
    assert row["precision_random"] > 0.6


def test_random_negatives_bear_a_peaks_token_as_often_as_quiet_tokens_do(explained: Explained) -> None:
    corpus = Corpus.open(explained.dataset)
    evidence = next(each for each in _evidence(explained) if each.unit == "latent:4")
    digits = Predicate(first=("class", 4), classes=("number",), words="any number")
    quiet = evidence.quiet_q[evidence.quiet_part_q == HELD_OUT]
    false_share = digits.holds(corpus.features(quiet)).mean()
    row = score_predicate(evidence, digits, corpus, ScoresConfig(examples=1000), 42)
    # it holds wherever the unit fires, so precision at equal numbers is 1 / (1 + share of quiet tokens it holds on)
    assert 0.05 < false_share < 0.5
    assert row["precision_random"] == pytest.approx(1 / (1 + false_share), abs=0.02)


def _evidence(explained: Explained) -> list[Evidence]:
    corpus = Corpus.open(explained.dataset)
    return list(read_evidence(explained.contexts, corpus, STATISTICAL))


def test_shown_contexts_come_from_no_held_out_rollout(explained: Explained) -> None:
    for evidence in _evidence(explained):
        shown = evidence.shown(64)
        assert (evidence.part_n[shown] != HELD_OUT).all()
        assert evidence.top_n[shown].all()
        seen = {evidence.windows[place].rollout_id for place in shown.tolist()}
        held = {w.rollout_id for w, part in zip(evidence.windows, evidence.part_n, strict=False) if part == HELD_OUT}
        assert not seen & held


def test_quiet_tokens_never_fire(explained: Explained) -> None:
    corpus, texts = Corpus.open(explained.dataset), explained.world.texts
    starts = sorted((first, rollout) for rollout, first in corpus.first.items())
    for evidence in _evidence(explained):
        rule = explained.world.units[evidence.unit]
        for flat in evidence.quiet_q[:50].tolist():
            first, rollout = max(each for each in starts if each[0] <= flat)
            assert rule(texts[rollout], flat - first) <= 0


def test_a_rollout_gives_at_most_the_configured_strongest_contexts(explained: Explained) -> None:
    for evidence in _evidence(explained):
        rollouts = [window.rollout_id for window in evidence.windows if window.sample == "top"]
        assert max((rollouts.count(each) for each in rollouts), default=0) <= STATISTICAL.contexts_per_rollout


def test_precision_at_equal_numbers() -> None:

    # 80 % of positives and 25 % of negatives called: .8 / (.8 + .25).
    assert precision(0.8, np.array([True, False, False, False])) == pytest.approx(0.8 / 1.05)
    assert precision(0.8, np.array([], dtype=bool)) is None
    assert precision(0.0, np.array([False, False])) is None


def test_a_predicate_is_scored_on_four_tokens_of_either_kind_and_on_no_fewer(explained: Explained) -> None:
    evidence, corpus = _evidence(explained)[0], Corpus.open(explained.dataset)
    predicate = Predicate.model_validate_json(explained.row(evidence.unit)["predicate"])
    for firing, quiet, status in ((4, 4, "ok"), (3, 4, "insufficient"), (4, 3, "insufficient")):
        part_n = np.where(np.arange(len(evidence.part_n)) < firing, HELD_OUT, HALF_A)
        quiet_part_q = np.where(np.arange(len(evidence.quiet_part_q)) < quiet, HELD_OUT, HALF_B)
        few = replace(evidence, part_n=part_n, quiet_part_q=quiet_part_q)
        assert score_predicate(few, predicate, corpus, ScoresConfig(), 42)["status"] == status


def test_a_predicates_measures_over_two_draws_by_hand() -> None:
    """It holds on 0, 1 and 3 of what fires, and on quiet 1 and 3; quiet 2 and 3 bear a peak's token."""
    fires, quiet = np.array([True, True, False, True]), np.array([False, True, False, True, False])
    hard = np.array([False, False, True, True, False])
    first = _Drawn(np.array([0, 2]), np.array([0, 1]), np.array([3]))
    second = _Drawn(np.array([0, 1]), np.array([0, 2]), np.array([3]))
    found = _measured([first, second], fires, quiet, hard)
    assert (found["sensitivity"], found["specificity"]) == pytest.approx((2 / 3, 2 / 4))
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    # False of the random 0, 1 and 2: 1 of 3. False of 2 and 3, whether drawn at random or for their token: 1 of 2.
    assert found["precision_random"] == pytest.approx((2 / 3) / (2 / 3 + 1 / 3))
    assert found["precision_hard"] == pytest.approx((2 / 3) / (2 / 3 + 1 / 2))
    assert (found["n_examples"], found["draws"]) == (3 + 4, 2)
    # (1/2 + 1/3) / 2 in the first draw, (1 + 2/3) / 2 in the second
    assert found["draw_spread"] == pytest.approx((5 / 6 - 5 / 12) / 2**0.5)


def test_a_draw_shows_as_many_quiet_tokens_as_firing_ones_and_none_twice() -> None:
    hard = np.arange(40) % 10 == 0  # 4 of 40
    for drawn in _draws(np.ones(30, dtype=bool), hard, ScoresConfig(examples=16), np.random.default_rng(0)):
        assert (len(drawn.fires), len(drawn.random)) == (8, 8 - 4)
        assert set(drawn.tricky.tolist()) == {0, 10, 20, 30} - set(drawn.random.tolist())
    many = _draws(np.ones(30, dtype=bool), hard, ScoresConfig(examples=8), np.random.default_rng(0))
    assert {(len(drawn.random), len(drawn.tricky)) for drawn in many} == {(2, 2)}


def test_the_split_does_not_depend_on_the_number_of_rollouts() -> None:
    few, many = draw_parts(10, 0.25, 42), draw_parts(1000, 0.25, 42)
    assert (few == many[:10]).all()
    shares = [(many == part).mean() for part in (HALF_A, HALF_B, HELD_OUT)]
    assert shares == pytest.approx([0.375, 0.375, 0.25], abs=0.05)


def test_spearman_equals_scipys_with_ties() -> None:
    from scipy.stats import spearmanr

    from assets.interpretations.token_detection import _spearman

    positive, quiet = np.array([True, True, False, True]), np.array([False, True, False, False, False])
    value = np.array([3.0, 2.0, 2.0, 1.0])
    expected = spearmanr(np.concatenate([positive, quiet]), np.concatenate([value, np.zeros(5)]))[0]
    assert _spearman(positive, value, quiet) == pytest.approx(expected)
    assert _spearman(np.array([True]), np.array([1.0]), np.array([True])) is None


def _scored(method: str, accuracy: float, precision_hard: float | None) -> dict:
    row = {"unit": "latent:1", "kind": "latent", "explainer": "openai/x", "status": "ok", "method": method}
    return row | {
        "balanced_accuracy": accuracy,
        "precision_hard": precision_hard,
        "sensitivity": 1.0,
        "sensitivity_typical": None,
    }


def test_the_summary_keeps_intruders_apart_and_leaves_unknown_precisions_open() -> None:
    rows = [_scored("detection", 0.75, None), _scored("intruder", 0.5, None), _scored("fuzzing", 0.625, 0.875)]
    found = summary(rows, {"latent:1": {"label": 0, "statistical_label": None}})
    columns = ("method", "balanced_accuracy", "intruder_accuracy", "precision_hard")
    assert [tuple(row[column] for column in columns) for row in found] == [
        ("detection", 0.75, None, None), ("fuzzing", 0.625, None, 0.875), ("intruder", None, 0.5, None),
    ]  # fmt: skip


def test_the_summary_groups_by_the_class_that_the_scored_explainer_gave_and_counts_scored_rows_alone() -> None:
    told = {"latent:1": {"label": 0, "statistical_label": 1}, "latent:2": {"label": 0, "statistical_label": None}}
    offline = {"explainer": "statistical", "method": "detection"}
    rows = [_scored("detection", 0.5, None), _scored("detection", 1.0, None) | {"unit": "latent:2"}]
    rows += [row | offline for row in rows]
    rows.append(_scored("detection", 0.0, None) | {"status": "failed"})
    columns = ("explainer", "label", "class", "units", "balanced_accuracy")
    assert [tuple(row[column] for column in columns) for row in summary(rows, told)] == [
        ("openai/x", 0, CLASSES[0], 2, 0.75), ("statistical", -1, "none", 1, 1.0),
        ("statistical", 1, CLASSES[1], 1, 0.5),
    ]  # fmt: skip


def test_a_token_that_is_among_the_strongest_and_in_a_quantile_counts_once(
    explained: Explained, tmp_path: Path
) -> None:
    table = pq.read_table(explained.contexts / "contexts.parquet")
    pq.write_table(pq.read_table(explained.contexts / "units.parquet"), tmp_path / "units.parquet")
    rows = [row for row in table.to_pylist() if row["sample"] != "quantile"]
    rows += [row | {"sample": "quantile"} for row in rows if row["sample"] == "top"]
    rows.sort(key=lambda row: row["unit"])  # stable: a unit's rows stand together
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "contexts.parquet")
    corpus = Corpus.open(explained.dataset)
    for evidence in read_evidence(tmp_path, corpus, STATISTICAL):
        assert len(set(evidence.peak_n.tolist())) == len(evidence.peak_n)
        assert evidence.typical_n.all()


def test_tokens_drawn_whatever_the_strength_of_the_firing_have_a_sensitivity_of_their_own(explained: Explained) -> None:
    corpus = Corpus.open(explained.dataset)
    evidence = next(each for each in _evidence(explained) if each.unit == "neuron:L0.3:-")
    token_n = corpus.features(evidence.peak_n)[FAMILIES.index("token")]
    one, other = sorted(set(token_n.tolist()))  # it fires on " so" and " the" alone
    predicate = Predicate(first=("token", one), classes=("word",), words="one of the two")
    found = [
        score_predicate(replace(evidence, typical_n=drawn), predicate, corpus, ScoresConfig(), 42)
        for drawn in (token_n == one, token_n == other, np.zeros(len(token_n), dtype=bool))
    ]
    assert [row["sensitivity_typical"] for row in found] == [1.0, 0.0, None]
    assert len({row["sensitivity"] for row in found}) == 1 and 0 < found[0]["sensitivity"] < 1


def test_an_explanation_has_its_own_score_and_not_that_of_the_predicate_beside_it(tmp_path: Path) -> None:
    said = {"latent:1": "openai/x", "latent:2": "statistical"}
    rows = [
        {"unit": unit, "explainer": explainer, "method": "detection", "balanced_accuracy": score}
        for unit, explainer, score in (
            ("latent:1", "openai/x", 0.5),
            ("latent:1", "statistical", 1.0),
            ("latent:2", "statistical", 0.75),
        )
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES_SCHEMA), tmp_path / "scores.parquet")
    assert Scores.open(tmp_path).of("fuzzing", said) == {}
    found = Scores.open(tmp_path).of("detection", said)
    assert {unit: row["balanced_accuracy"] for unit, row in found.items()} == {"latent:1": 0.5, "latent:2": 0.75}
