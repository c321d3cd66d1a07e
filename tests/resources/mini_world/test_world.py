"""Problems: the arithmetic by hand, the text as it stands, and splits that never share a problem."""

import random

import pytest

from resources.mini_world.world import (
    KINDS,
    SPLIT_BUCKETS,
    STEPS,
    Kind,
    Problem,
    Step,
    run,
    sample_problem,
    split_of,
)


def build_problem(options: tuple[int, ...] | None = None) -> Problem:
    steps = (Step("add", 8), Step("save"), Step("times", 7), Step("take", 9), Step("add saved"))
    return Problem(4, steps, "Tom sets a dial to 4.", "What does the dial show?", options=options)


def test_steps_are_done_in_order_and_wrap_at_ten() -> None:
    # 4 + 8 = 12 -> 2, saved; 2 * 7 = 14 -> 4; 4 - 9 = -5 -> 5; 5 + saved 2 = 7
    assert [state.value for state in build_problem().states] == [2, 2, 4, 5, 7]


def test_a_step_wraps_only_where_the_plain_result_is_no_digit() -> None:
    assert [state.wraps for state in build_problem().states] == [True, False, True, True, False]


def test_the_text_lists_the_steps_by_their_ordinals() -> None:
    assert build_problem(options=(3, 7, 0, 5)).text == (
        "Tom sets a dial to 4.\nFirst +8.\nSecond save.\nThird *7.\nFourth -9.\nFifth +saved.\n"
        "What does the dial show?\nOptions: three A, seven B, zero C, five D"
    )


def test_the_answer_is_the_digit_or_the_letter_which_has_it() -> None:
    assert build_problem().answer == "7"
    assert build_problem(options=(3, 7, 0, 5)).answer == "B"


def test_reading_a_digit_that_was_never_saved_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\+saved' reads a saved digit before any was saved"):
        run(4, (Step("add saved"),))


def test_a_step_may_read_the_start_again() -> None:
    # 4 * 3 = 12 -> 2; 2 - start 4 = -2 -> 8
    steps = (Step("times", 3), Step("take start"))
    assert [state.value for state in run(4, steps)] == [2, 8]
    assert steps[1].text == "-Start"


def test_pretraining_never_reads_the_start_again_and_finetuning_sometimes_does() -> None:
    rng = random.Random(0)
    shares = {
        split: sum("Start" in sample_problem(rng, split, "medium").canonical for _ in range(200)) / 200
        for split in ("pretrain", "s1k_mini")
    }
    assert shares["pretrain"] == 0
    assert 0.2 < shares["s1k_mini"] < 0.4


def test_words_around_the_steps_do_not_change_the_split() -> None:
    plain = build_problem()
    dressed = Problem(4, plain.steps, "Start with 4.", "What is the result?", "Mia bought 3 apples.", (1, 7, 2, 3))
    assert plain.canonical == dressed.canonical == "4;+8;save;*7;-9;+saved"
    assert split_of(plain) == split_of(dressed)


def test_every_hash_bucket_belongs_to_exactly_one_split() -> None:
    assert sorted(bucket for buckets in SPLIT_BUCKETS.values() for bucket in buckets) == list(range(100))


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_problems_keep_their_split_their_length_and_a_right_option(kind: Kind) -> None:
    rng = random.Random(3)
    first, last = STEPS[kind]
    for _ in range(50):
        problem = sample_problem(rng, kind, kind)
        assert split_of(problem) == kind
        assert first <= len(problem.steps) <= last
        assert (problem.options is None) == (kind != "choice")
        if problem.options is not None:
            assert len(set(problem.options)) == 4
            assert problem.options["ABCD".index(problem.answer)] == problem.value
