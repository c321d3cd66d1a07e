"""What an LLM's judgements of held-out excerpts add up to, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from assets.interpretations.evidence import Window
from assets.interpretations.examples import Example
from assets.interpretations.judge import Activity, Sheet, _activity_score

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
