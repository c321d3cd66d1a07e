"""Intervals of differences against published ones."""

import pytest

from resources.intervals import difference, wilson


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
