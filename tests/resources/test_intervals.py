"""Intervals of differences, shares of a gain and ratios: published ones, by hand, and how often they hold."""

from math import exp, sqrt

import numpy as np
import pytest

from bench.coverage import answers as asked
from bench.coverage import held, kls
from resources.intervals import Ratio, difference, paired_difference, ratio, ratio_interval, share_of_gain, wilson


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090)), ((10, 10), (0, 20), (0.6791, 1))],
)
def test_the_interval_of_a_difference_of_shares_is_newcombes(
    first: tuple[int, int], second: tuple[int, int], published: tuple[float, float]
) -> None:
    """Newcombe 1998, table II, method 10."""
    found = difference((first[0] / first[1], *wilson(*first)), (second[0] / second[1], *wilson(*second)))
    assert found == pytest.approx(published, abs=1e-4)


def answers(*counts: tuple[int, tuple[float, ...]]) -> list[list[float]]:
    """Per arm its questions, from how often each outcome of one question occurs."""
    rows = [outcome for count, outcome in counts for _ in range(count)]
    return [list(arm) for arm in zip(*rows, strict=True)]


def test_the_interval_of_a_paired_difference_is_bonett_and_prices() -> None:
    # 3 and 1 of 28 answers differ: (3 + 1) / 30 and (1 + 1) / 30, whose difference has the variance .2 - (2/30)^2
    first, second = answers((3, (0, 1)), (1, (1, 0)), (20, (1, 1)), (4, (0, 0)))
    half = 1.959964 * sqrt((0.2 - (2 / 30) ** 2) / 30)
    assert paired_difference(first, second) == pytest.approx((2 / 30 - half, 2 / 30 + half), abs=1e-6)


def test_questions_that_two_arms_answer_alike_leave_a_difference_either_way() -> None:
    low, high = paired_difference([1.0] * 28, [1.0] * 28)
    assert (low, high) == pytest.approx((-1.959964 * sqrt(2) / 30, 1.959964 * sqrt(2) / 30), abs=1e-6)
    # all gained: 11/12 - 1/12 less 1.96 errors of sqrt((1 - (5/6)^2) / 12)
    gained = 5 / 6 - 1.959964 * sqrt((1 - (5 / 6) ** 2) / 12)
    assert paired_difference([0.0] * 10, [1.0] * 10) == pytest.approx((gained, 1.0), abs=1e-6)


def test_a_question_asked_often_brings_more_than_one_answer() -> None:
    # means of .25 and .75 in both arms: a variance of 1/16 where one answer has 1/4, so each outcome weighs 1/4
    first, second = [0.25, 0.75] * 14, [0.75, 0.25] * 14
    half = 1.959964 * sqrt((28 / 4 + 2 / 4) / 28.5 / 28.5)
    assert paired_difference(first, second) == pytest.approx((-half, half), abs=1e-6)
    # equal questions are no certainty: they weigh one answer each
    assert paired_difference([1 / 3] * 28, [1 / 3] * 28)[1] == pytest.approx(1.959964 * sqrt(2) / 30, abs=1e-6)


def test_the_interval_of_a_share_of_a_gain_solves_fiellers_equation() -> None:
    base, part, whole = answers((6, (0, 1, 1)), (3, (0, 0, 1)), (1, (0, 1, 0)), (7, (1, 1, 1)), (4, (0, 0, 0)))
    found = share_of_gain(base, part, whole)
    assert found is not None
    assert found[0] < 7 / 9 < found[1]
    for share in found:  # at either end the kept part less that share of the gain is 1.96 errors from 0
        differing = ((0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0))
        rest = [p - b - share * (w - b) for b, p, w in zip(base, part, whole, strict=True)]
        more = [p - b - share * (w - b) for b, p, w in differing]
        mean = sum(rest) / 24
        variance = (sum(x**2 for x in rest) + sum(x**2 for x in more) / 2) / 24 - mean**2
        assert mean**2 == pytest.approx(1.959964**2 * variance / 24, rel=1e-5)


def test_a_gain_that_may_be_none_bounds_no_share_of_it() -> None:
    base, part, whole = answers((4, (0, 1, 1)), (1, (1, 1, 0)), (15, (1, 1, 1)))
    assert share_of_gain(base, part, whole) is None
    assert share_of_gain(whole, part, base) is None  # nor does a loss
    assert share_of_gain([0.0], [1.0], [1.0]) is None


@pytest.mark.parametrize(("rates", "questions"), [((0.95, 0.97), 30), ((0.97, 0.97), 30), ((0.5, 0.6), 100)])
def test_nine_paired_differences_of_ten_are_held_near_one_too(rates: tuple[float, float], questions: int) -> None:
    """A bootstrap of the questions holds 84 and 77 % of the first two."""
    rng = np.random.default_rng(1)
    found = [paired_difference(*asked(rates, questions, rng)) for _ in range(1000)]
    assert held(rates[1] - rates[0], [*found]) > 0.93


@pytest.mark.parametrize(
    ("rates", "questions"), [((0.5, 0.99, 0.99), 30), ((0.1, 0.83, 0.97), 200), ((0.23, 0.5, 0.6), 30)]
)
def test_nine_shares_of_a_gain_of_ten_are_held_near_one_too(rates: tuple[float, float, float], questions: int) -> None:
    """A bootstrap of the questions holds a fifth of the first one."""
    base, part, whole = rates
    rng = np.random.default_rng(2)
    found = [share_of_gain(*asked(rates, questions, rng)) for _ in range(1000)]
    assert held((part - base) / (whole - base), found) > 0.93


def test_the_interval_of_a_ratio_is_students_of_its_logarithm() -> None:
    # 97.5 % quantile of 7 degrees of freedom: 2.364624
    spread = exp(2.364624 * 0.5 / 2)
    assert ratio_interval(Ratio(2.0, 0.5), 8) == pytest.approx((2 / spread, 2 * spread), rel=1e-6)


@pytest.mark.parametrize(("value", "error"), [(2.0, None), (2.0, 1e-12), (0.0, 0.0), (-1e-9, 1e-9), (1e-12, 1e-9)])
def test_a_ratio_of_one_cluster_or_of_equal_ones_or_of_rounding_errors_is_not_bounded(
    value: float, error: float | None
) -> None:
    assert ratio_interval(Ratio(value, error), 16) == (None, None)


def test_a_ratio_that_one_cluster_makes_alone_is_bounded() -> None:
    """Nothing above zero has a larger error than this one, twice itself."""
    found = ratio([8.0, 0.0], [0.0, 8.0])
    assert found == (1.0, 2.0)
    assert ratio_interval(found, 2) != (None, None)


def test_nine_mean_kls_of_ten_are_held_where_rollouts_differ_by_their_half() -> None:
    """Of their plain mean, whose logarithm is not taken, Student's holds 91 %."""
    rng = np.random.default_rng(3)
    found = [ratio_interval(ratio(kls(0.6, 0, 1, rng)[0], [1.0] * 16), 16) for _ in range(1500)]
    assert held(exp(0.18), found) > 0.92
