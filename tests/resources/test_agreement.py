"""Cohen's kappa against a worked example."""

import pytest

from resources.agreement import kappa


def test_kappa_of_a_worked_example() -> None:
    # Agree on 3 of 4; chance = (2/4)(1/4) + (2/4)(3/4) = 0.5, so kappa = (.75 - .5) / .5.
    assert kappa([(0, 0), (0, 1), (1, 1), (1, 1)]) == pytest.approx(0.5)


def test_kappa_of_one_constant_label_is_one_and_of_nothing_is_zero() -> None:
    assert kappa([(2, 2), (2, 2)]) == 1.0
    assert kappa([]) == 0.0
