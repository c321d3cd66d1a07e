"""What continuations came to is counted by hand, and intervals cover as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.ablation.outcomes import Continuation, boxed, count_words, is_correct, summarise
from resources.intervals import wilson


def test_backtracking_words_are_whole_words_in_their_case() -> None:
    assert count_words("Wait, Wait. Waiter wait Hmm\nAlternatively", ("Wait", "Hmm", "Alternatively")) == 4
    assert count_words("Wait", ()) == 0


def test_a_word_of_a_script_without_spaces_counts_between_other_characters() -> None:
    assert count_words("所以等一下再算。等一下，不对", ("等一下",)) == 2
    assert count_words("ここでちょっと待って、もう一度", ("待って",)) == 1


@pytest.mark.parametrize(
    ("text", "word", "wanted"),
    [("Wait, no. Wait, yes", "Wait,", 2), ("...so it is. ...x", "...so", 1), ("Await, Wait,", "Wait,", 1)],
)
def test_a_backtracking_word_may_begin_or_end_with_a_mark(text: str, word: str, wanted: int) -> None:
    assert count_words(text, (word,)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(r"so \boxed{ 7 }.", "7"), (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"), (r"\boxed{1} \boxed{2", "1")],
)
def test_the_answer_is_the_last_closed_box(text: str, wanted: str) -> None:
    assert boxed(text) == wanted
    assert boxed("no box") is None


@pytest.mark.parametrize(
    ("text", "solution", "wanted"),
    [
        (r"\boxed{7}", r"long work, \boxed{ 7 }", True),
        (r"\boxed{7.0}", "7", True),
        (r"\boxed{8}", "7", False),
        ("none", "7", False),
        (r"\boxed{\frac{1}{2}}", "0.5", True),
        (r"\boxed{7}", "", None),
    ],
)
def test_an_answer_is_compared_with_the_solution(text: str, solution: str, wanted: bool | None) -> None:
    assert is_correct(text, solution) is wanted


def test_rates_and_intervals_by_hand() -> None:
    found = [
        Continuation(rollout_id=1, n_tokens=40, n_backtracking=2, correct=True, truncated=False),
        Continuation(rollout_id=1, n_tokens=60, n_backtracking=0, correct=True, truncated=True),
        Continuation(rollout_id=2, n_tokens=100, n_backtracking=4, correct=False, truncated=False),
    ]
    row = summarise(found)
    # 6 words in 200 tokens; problem residuals 200 - 300 and 400 - 300; sem sqrt(2 * 20000) / 200 = 1.
    # Student's 97.5 % quantile with one degree of freedom is tan(.475 pi) = 12.706.
    assert row["backtracking"] == pytest.approx(3.0)
    # A logarithm of 3 has an error of 1 / 3.
    spread = math.exp(math.tan(0.475 * math.pi) / 3)
    assert (row["backtracking_low"], row["backtracking_high"]) == pytest.approx((3 / spread, 3 * spread))
    assert row["length"] == pytest.approx(200 / 3)
    # as many trials as problems: two thirds of two
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == pytest.approx((2 / 3, *wilson(4 / 3, 2)))
    assert row["truncated"] == pytest.approx(1 / 3)


def test_continuations_that_are_all_alike_bound_nothing() -> None:
    # one token each and no backtracking word in eight tokens is no proof that there are none
    row = summarise([Continuation(r, 1, 0, None, False) for r in range(8)])
    assert (row["backtracking"], row["backtracking_low"], row["backtracking_high"]) == (0, None, None)
    assert (row["length"], row["length_low"], row["length_high"]) == (1, None, None)
    # 39 words in 900 tokens, again and again: thirds of a word do not add up exactly
    row = summarise([Continuation(r // 3, 300, 13, None, True) for r in range(24)])
    assert (row["backtracking_low"], row["backtracking_high"]) == (None, None)


def test_the_interval_over_eight_problems_covers_the_true_mean_length_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(500):
        lengths = rng.normal(100, 20, 8)
        row = summarise([Continuation(r, n, 0, None, False) for r, n in enumerate(lengths)])
        low, high = row["length_low"], row["length_high"]
        assert low is not None and high is not None
        covered += low <= 100 <= high
    assert covered / 500 >= 0.93


@pytest.mark.parametrize("problems", [8, 32])
def test_the_interval_of_backtracking_that_few_problems_have_covers_about_as_often_as_it_says(problems: int) -> None:
    rng, covered, bounded = np.random.default_rng(0), 0, 0
    for _ in range(500):
        # one word in a thousand tokens, by problems as unlike as an exponential's square
        tokens, rates = rng.integers(100, 2048, problems), rng.gamma(0.5, 2e-3, problems)
        words = rng.poisson(rates * tokens)
        found = enumerate(zip(tokens.tolist(), words.tolist(), strict=True))
        row = summarise([Continuation(r, n, w, None, False) for r, (n, w) in found])
        low, high = row["backtracking_low"], row["backtracking_high"]
        if low is not None and high is not None:
            bounded, covered = bounded + 1, covered + (low <= 0.1 <= high)
    assert covered / bounded >= 0.91


def test_wilsons_interval_for_five_of_ten_is_the_published_one() -> None:
    assert wilson(5, 10) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))


@given(st.integers(1, 50), st.data())
def test_wilsons_interval_holds_the_share_and_stays_a_share(total: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, total))
    low, high = wilson(successes, total)
    assert 0 <= low <= successes / total + 1e-12
    assert successes / total - 1e-12 <= high <= 1
