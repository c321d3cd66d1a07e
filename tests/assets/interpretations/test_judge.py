"""What an LLM's judgements of held-out excerpts add up to, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from assets.interpretations.config import InterpretationsConfig, ScoresConfig
from assets.interpretations.evidence import Window
from assets.interpretations.examples import Example
from assets.interpretations.judge import (
    Activity,
    Intruder,
    Sheet,
    _activity_score,
    _chosen,
    _intruder_score,
    _rows,
    judge_endpoint,
)
from assets.interpretations.label import Label, endpoint_of
from assets.interpretations.label import _row as label_row
from resources.intervals import wilson
from resources.llm.answers import Answer
from resources.llm.ask import Asked, Bill

Judged = list[tuple[Sheet, Activity]]


def excerpt(rollout: int, fires: bool = False, hard: bool = False) -> Example:
    return Example(Window(rollout, 9, float(fires), 0, np.zeros(20), "top", True), 9, fires, hard)


def judged(*draws: list[tuple[Example, bool]]) -> Judged:
    """One sheet per draw, with what was said of each excerpt."""
    return [
        (
            Sheet("latent:1", "latent", "detection", draw, tuple(example for example, _ in told)),
            Activity(active=[said for _, said in told]),
        )
        for draw, told in enumerate(draws)
    ]


FIRST, SECOND = excerpt(1, fires=True), excerpt(2, fires=True)
EASY, HARD = excerpt(3), excerpt(4, hard=True)


def test_an_excerpt_that_two_draws_show_counts_once_with_the_mean_of_its_judgements() -> None:
    found = _activity_score(
        judged(
            [(FIRST, True), (SECOND, False), (EASY, False), (HARD, True)],
            [(FIRST, True), (EASY, False), (HARD, False)],
        )
    )
    assert found["n_examples"] == 4
    # Called active: 1 and 0 of the two that fire, 0 and 1/2 of the two that do not.
    assert (found["sensitivity"], found["specificity"]) == (0.5, 0.75)
    assert found["balanced_accuracy"] == 0.625
    assert found["precision_random"] == 1.0
    assert found["precision_hard"] == 0.5 / (0.5 + 0.5)
    # Wilson: 1/2 -> (.0945, .9055), 1.5/2 -> (.1979, .9733); half of the root of the summed squares.
    assert found["ci_low"] == pytest.approx(0.625 - ((0.5 - 0.0945) ** 2 + (0.75 - 0.1979) ** 2) ** 0.5 / 2, abs=1e-3)
    assert found["ci_high"] == pytest.approx(0.625 + ((0.9055 - 0.5) ** 2 + (0.9733 - 0.75) ** 2) ** 0.5 / 2, abs=1e-3)
    # Balanced accuracy of the draws: (1/2 + 1/2) / 2 and (1 + 1) / 2.
    assert found["draw_spread"] == pytest.approx(0.5 / 2**0.5)


def test_a_random_excerpt_stays_one_when_another_draw_takes_it_for_its_token() -> None:
    twin = Example(EASY.window, EASY.centre, fires=False, hard=True)
    found = _activity_score(judged([(FIRST, True), (EASY, True), (HARD, False)], [(FIRST, True), (twin, True)]))
    assert found["precision_random"] == 1 / (1 + 1)
    assert found["precision_hard"] == 1 / (1 + 0.5)


def test_firing_excerpts_drawn_whatever_their_strength_have_a_share_of_their_own() -> None:
    weak = Example(replace(excerpt(5).window, sample="quantile", typical=True), 9, fires=True, hard=False)
    both = Example(replace(excerpt(6).window, typical=True), 9, fires=True, hard=False)
    quiet = Example(replace(excerpt(7).window, typical=True), 3, fires=False, hard=True)
    found = _activity_score(judged([(FIRST, True), (SECOND, True), (weak, False), (both, True), (quiet, True)]))
    assert (found["sensitivity"], found["sensitivity_typical"]) == (0.75, 0.5)
    assert _activity_score(judged([(FIRST, True), (quiet, True)]))["sensitivity_typical"] is None


def test_asking_the_same_excerpts_again_narrows_no_interval() -> None:
    told = [(FIRST, True), (SECOND, False), (EASY, False), (HARD, True)]
    once, thrice = _activity_score(judged(told)), _activity_score(judged(told, told, told))
    assert {**once, "draw_spread": 0.0} == thrice


def test_a_window_that_fires_and_its_wrongly_marked_twin_are_two_examples() -> None:
    twin = Example(FIRST.window, FIRST.centre, fires=False, hard=True, marked=frozenset({3}))
    found = _activity_score(judged([(FIRST, True), (twin, False)]))
    assert (found["n_examples"], found["balanced_accuracy"]) == (2, 1.0)


KNOBS = InterpretationsConfig(provider="openai", model="explains")


def asked(values: list[Activity | Label | None], name: str = "latent:1") -> Asked:
    """Answers to one question's samples; None is one that could not be used."""
    answers = {
        (name, i): Answer(name, i, "", value, "" if value else "x", False, False) for i, value in enumerate(values)
    }
    return Asked(answers, Bill(len(values)), 0.0)


def among(intruder: Example) -> Sheet:
    """A question in which it is the third."""
    fires = [excerpt(rollout, fires=True) for rollout in range(1, 5)]
    return Sheet("latent:1", "latent", "intruder", 0, (*fires[:2], intruder, *fires[2:]))


def test_an_intruder_is_found_where_the_number_given_is_its_place() -> None:
    found = _intruder_score([(among(excerpt(10 + i)), Intruder(intruder=n)) for i, n in enumerate((3, 2, 4, 3))])
    assert (found["n_examples"], found["balanced_accuracy"]) == (4, 0.5)
    assert (found["ci_low"], found["ci_high"]) == wilson(2, 4)


def test_an_intruder_that_several_questions_show_counts_once_with_the_mean_of_its_picks() -> None:
    told = [(among(EASY), Intruder(intruder=number)) for number in (3, 3, 3, 2)]
    found = _intruder_score([*told, (among(excerpt(5)), Intruder(intruder=1))])
    # 3/4 and 0 of two, not 3 of 5
    assert (found["n_examples"], found["balanced_accuracy"]) == (2, 0.375)
    assert (found["ci_low"], found["ci_high"]) == wilson(0.75, 2)


def test_excerpts_of_requests_without_a_usable_answer_are_counted_as_failed() -> None:
    examples = ((FIRST, EASY), (SECOND, EASY, HARD))
    sheets = {("latent:1", i): Sheet("latent:1", "latent", "detection", i, shown) for i, shown in enumerate(examples)}
    explained = {"latent:1": {"explainer": "openai/explains"}}
    (row,) = _rows(sheets, asked([Activity(active=[True, False]), None]), explained, endpoint_of(KNOBS), ScoresConfig())
    assert (row["status"], row["n_failed"], row["n_examples"], row["balanced_accuracy"]) == ("ok", 3, 2, 1.0)
    (row,) = _rows(sheets, asked([None, None]), explained, endpoint_of(KNOBS), ScoresConfig())
    assert (row["status"], row["n_failed"], row["balanced_accuracy"]) == ("failed", 5, None)


def test_answers_about_firing_excerpts_alone_give_no_score_nor_those_about_quiet_ones() -> None:
    for shown in ((FIRST, SECOND), (EASY, HARD)):
        sheets = {("latent:1", 0): Sheet("latent:1", "latent", "detection", 0, shown)}
        explained = {"latent:1": {"explainer": "openai/explains"}}
        (row,) = _rows(sheets, asked([Activity(active=[True, True])]), explained, endpoint_of(KNOBS), ScoresConfig())
        assert (row["status"], row["balanced_accuracy"], row["ci_low"]) == ("insufficient", None, None)
        assert row["detail"] == "no firing example was answered, or none that does not fire"


def test_units_are_judged_evenly_over_those_of_a_kind_that_were_explained() -> None:
    explained = {f"latent:{i}": {"kind": "latent", "status": "ok"} for i in range(5)}
    explained |= {f"latent:{i}": {"kind": "latent", "status": "failed"} for i in (5, 6)}
    explained["neuron:L0.3:+"] = {"kind": "neuron", "status": "ok"}
    assert _chosen(explained, 3) == {"latent:0", "latent:2", "latent:4", "neuron:L0.3:+"}
    assert len(_chosen(explained, None)) == 6


def test_a_judge_is_the_explainer_unless_another_model_is_named() -> None:
    models = [judge_endpoint(KNOBS, ScoresConfig(judge_model=name)).model for name in ("", "judges")]
    assert models == ["explains", "judges"]


def test_the_stability_of_a_label_is_the_share_of_the_further_answers_that_agree_with_the_first() -> None:
    labels = [Label(explanation="x", classification=label, classification_reasoning="") for label in (0, 0, 1)]
    found = [label_row(endpoint_of(KNOBS), "latent:1", asked([*labels[:n], None]), n + 1) for n in (3, 2, 1)]
    assert [row["stability"] for row in found] == [0.5, 1.0, None]
