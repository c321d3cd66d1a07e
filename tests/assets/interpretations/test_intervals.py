"""Intervals against published values and an independent implementation."""

import pytest
from scipy.stats import binomtest

from assets.interpretations.intervals import balanced
from resources.intervals import wilson


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (5, 10), (31, 32), (64, 64), (1, 1)])
def test_wilson_equals_scipy(hits: int, total: int) -> None:
    expected = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_balanced_accuracy_is_the_mean_of_both_rates_and_lies_in_its_interval() -> None:
    middle, low, high = balanced(18, 20, 10, 20)
    assert middle == pytest.approx((0.9 + 0.5) / 2)
    # Wilson: 18/20 -> (.6990, .9721), 10/20 -> (.2993, .7007); half of the root of the summed squares.
    assert low == pytest.approx(0.7 - ((0.9 - 0.6990) ** 2 + (0.5 - 0.2993) ** 2) ** 0.5 / 2, abs=1e-3)
    assert high == pytest.approx(0.7 + ((0.9721 - 0.9) ** 2 + (0.7007 - 0.5) ** 2) ** 0.5 / 2, abs=1e-3)


def test_balanced_accuracy_stays_a_share_and_says_nothing_of_nothing() -> None:
    assert balanced(2, 2, 2, 2)[::2] == (1.0, 1.0)
    assert balanced(0, 2, 0, 2)[:2] == (0.0, 0.0)
    assert balanced(0, 0, 2, 2)[0] == (0.5 + 1.0) / 2  # a rate of which nothing is known is a coin's
