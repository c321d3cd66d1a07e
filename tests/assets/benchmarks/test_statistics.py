"""Intervals and tests against scipy, definitions, and the paper's own counts."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from assets.benchmarks.config import RECOVERED
from assets.benchmarks.published import CORRECT, QUESTIONS, published
from assets.benchmarks.records import pair_rows, recovery_rows, score_rows
from assets.benchmarks.statistics import (
    clustered_mean,
    consistent,
    mcnemar,
    paired,
    recovery,
    score_estimate,
    share_of,
)
from assets.benchmarks.tables import consistency, shown_recovery, table_1, table_2
from resources import intervals


def ones(correct: int, total: int) -> np.ndarray:
    return np.array([1.0] * correct + [0.0] * (total - correct))


@pytest.mark.parametrize(
    ("benchmark", "printed"),
    [
        ("aime24_nofigures", (0.2333, 0.5000, 0.6000, 0.3667, 0.1333)),
        ("openai_math", (0.8340, 0.9100, 0.9220, 0.9000, 0.8440)),
        ("gpqa_diamond_openai", (0.4899, 0.5808, 0.5909, 0.5152, 0.5051)),
    ],
)
def test_the_papers_counts_give_its_tables_to_rounding(benchmark: str, printed: tuple[float, ...]) -> None:
    scores = [correct / QUESTIONS[benchmark] for correct in CORRECT[benchmark].values()]
    assert [round(score, 4) for score in scores] == list(printed)


@pytest.mark.parametrize(
    ("benchmark", "tolerance"), [("aime24_nofigures", 5e-5), ("openai_math", 5e-5), ("gpqa_diamond_openai", 2e-3)]
)
def test_the_papers_counts_give_its_recovery(benchmark: str, tolerance: float) -> None:
    base, lora, full = (CORRECT[benchmark][arm] for arm in ("base", "lora", "full_finetune"))
    assert (lora - base) / (full - base) == pytest.approx(RECOVERED[benchmark], abs=tolerance)
    total = QUESTIONS[benchmark]
    found = recovery(ones(base, total), ones(lora, total), ones(full, total))
    assert found is not None
    assert found.value == pytest.approx((lora - base) / (full - base))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (7, 30, 0.118, 0.409),
        (15, 30, 0.332, 0.668),
        (18, 30, 0.423, 0.754),
        (417, 500, 0.799, 0.864),
        (97, 198, 0.421, 0.559),
    ],
)
def test_wilson_matches_the_worked_intervals(correct: int, total: int, low: float, high: float) -> None:
    found = share_of(correct, total)
    assert (round(found.low or 0, 3), round(found.high or 0, 3)) == (low, high)


def test_wilson_solves_its_own_equation() -> None:
    # The ends of Wilson's interval are the rates p with (k/n - p)^2 = z^2 p (1 - p) / n.
    found = share_of(11, 30)
    for end in (found.low, found.high):
        assert end is not None
        assert (11 / 30 - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 30, rel=1e-5)


@pytest.mark.parametrize(("only_first", "only_second"), list(product([0, 1, 3, 8], repeat=2)))
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int) -> None:
    n = only_first + only_second
    by_hand = 1.0 if n == 0 else min(1.0, 2 * binom.cdf(min(only_first, only_second), n, 0.5))
    assert mcnemar(only_first, only_second) == pytest.approx(by_hand)


def test_mcnemar_of_the_papers_aime_gain_when_nothing_is_lost() -> None:
    # base 7 and LoRA 15 of 30: eight discordant questions, all gained: 2 / 2^8.
    assert mcnemar(0, 8) == pytest.approx(2 / 256)
    assert round(mcnemar(1, 9), 3) == 0.021
    assert round(mcnemar(3, 11), 3) == 0.057


def test_paired_counts_discordant_questions_and_bounds_the_difference() -> None:
    first, second = np.array([1.0, 1, 0, 0, 0]), np.array([1.0, 0, 1, 1, 0])
    found = paired(first, second, 1)
    assert (found.only_first, found.only_second, found.difference.value) == (1, 2, pytest.approx(0.2))
    assert found.p_value == 1.0
    assert found.difference.low is not None and found.difference.low <= 0 <= (found.difference.high or 0)


def test_paired_with_several_samples_has_no_mcnemar() -> None:
    assert paired(np.array([0.5, 1.0]), np.array([1.0, 1.0]), 4).p_value is None


def test_recovery_without_a_certain_gain_is_not_bounded() -> None:
    base, full = np.array([1.0, 0] * 20), np.array([0.0, 1] * 19 + [1.0, 1.0])
    found = recovery(base, full, full)
    assert found is not None
    assert (found.low, found.high) == (None, None)
    assert recovery(base, base, base) is None


def test_a_full_finetune_that_is_worse_than_the_base_has_no_gain_to_recover() -> None:
    # 60, 40 and 50 of 100 right: the LoRA lost twice as much, which is no recovery of 200 %
    assert recovery(ones(60, 100), ones(40, 100), ones(50, 100)) is None


def test_thirds_of_questions_that_add_up_to_no_gain_are_none() -> None:
    base, full = np.array([1, 0, 2, 0, 0]) / 3, np.array([0, 0, 1, 1, 1]) / 3
    assert recovery(base, full, full) is None
    shared = np.full(30, 1 / 3)
    found = clustered_mean(shared)
    assert found.low is not None and found.high is not None
    assert found.low < 1 / 3 < found.high


def test_avg_at_k_counts_questions_not_answers() -> None:
    # Five questions, always right or always wrong: 100 samples each say no more than one.
    means = np.array([1.0, 1, 1, 0, 0])
    found = clustered_mean(means)
    # Always or never right is one answer each, of which Student's quantile of 2.776 instead of 1.960 leaves 2.4915.
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == pytest.approx(intervals.wilson(0.6 * 2.4915, 2.4915), abs=1e-5)
    assert score_estimate(means, 100) == found
    assert score_estimate(means, 1) == share_of(3, 5)


@pytest.mark.parametrize(("samples", "ease", "difficulty"), [(4, 5, 0.15), (64, 5, 0.15), (64, 1, 0.03)])
def test_avg_at_k_of_thirty_questions_that_are_nearly_all_solved_is_in_its_interval_nine_times_of_ten(
    samples: int, ease: float, difficulty: float
) -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        found = clustered_mean(rng.binomial(samples, rng.beta(ease, difficulty, 30)) / samples)
        assert found.low is not None and found.high is not None and found.high <= 1
        covered += found.low <= ease / (ease + difficulty) <= found.high
    assert covered / 400 > 0.93


def test_the_interval_of_shares_by_hand() -> None:
    # 1, 1, 1/2, 1/2: a variance of 1/16 over 3/16, so an answer weighs 1/3; with one right and one wrong of that
    # weight the mean is 10/14 and the variance (5/2 + 1/3) x 3/14 - 25/49
    spread = (5 / 2 + 1 / 3) * 3 / 14 - 25 / 49
    answers = 4 * (10 / 49) / spread * (1.959964 / 3.182446) ** 2
    assert intervals.clustered_share([1, 1, 0.5, 0.5]) == pytest.approx(
        intervals.wilson(0.75 * answers, answers), rel=1e-5
    )


def test_equal_questions_are_no_certainty() -> None:
    # Wilson (1927): 0 of 30 has the upper end z^2 / (30 + z^2) = 3.8415 / 33.8415.
    none_right = clustered_mean(np.zeros(30))
    assert (none_right.value, none_right.low) == (0.0, pytest.approx(0.0))
    assert none_right.high == pytest.approx(0.1135, abs=1e-4)
    halves = clustered_mean(np.full(4, 0.5))
    assert halves.value == 0.5
    assert (halves.low, halves.high) == pytest.approx((share_of(2, 4).low, share_of(2, 4).high))
    one = clustered_mean(np.array([0.75]))
    assert (one.value, one.low, one.high) == (0.75, 0.0, 1.0)


def test_two_counts_are_consistent_unless_newcombes_interval_excludes_zero() -> None:
    assert consistent((15, 30), (15, 30))
    assert consistent((12, 30), (15, 30))
    assert not consistent((3, 30), (15, 30))
    # Newcombe (1998), table II: 56/70 against 48/80, method 10: [0.0524, 0.3339].
    assert not consistent((56, 70), (48, 80))
    # Same table: 9/10 against 3/10: [0.1705, 0.8090]; 5/56 against 0/29: [-0.0381, 0.1926].
    assert not consistent((9, 10), (3, 10))
    assert consistent((5, 56), (0, 29))
    # and whichever of the two is called the first
    assert not any(consistent(*pair) for pair in (((15, 30), (3, 30)), ((48, 80), (56, 70)), ((3, 10), (9, 10))))
    assert consistent((0, 29), (5, 56))


def records(counts: dict[str, int], benchmark: str, total: int) -> list[dict]:
    return [
        {
            "arm": arm,
            "benchmark": benchmark,
            "question_id": str(question),
            "correct": question < correct,
            "strict_correct": question < correct,
            "truncated": False,
            "rule": "boxed",
            "graded_by": "integer",
            "tokens": 10,
        }
        for arm, correct in counts.items()
        for question in range(total)
    ]


def test_tables_from_the_papers_own_counts_are_the_papers_tables() -> None:
    rows = [row for name in CORRECT for row in records(CORRECT[name], name, QUESTIONS[name])]
    scores, recoveries = score_rows(rows, 1), recovery_rows(rows)
    first, second = table_1(scores, recoveries), table_2(scores)
    assert [row["benchmark"] for row in first] == ["AIME'24 no figures", "MATH500", "GPQA-Diamond"]
    assert first[0]["base"] == "0.233 [0.118, 0.409]"
    assert first[0]["lora_paper"] == 0.5
    assert first[0]["recovery"].startswith("72.7 % [")
    assert second[1]["mlp_ablated"].startswith("0.844 [")
    assert second[1]["mlp_ablated_paper"] == 0.844
    assert len(consistency(scores)) == 15
    assert all(row["consistent"] for row in consistency(scores))


def test_a_score_far_from_the_papers_is_called_inconsistent() -> None:
    scores = score_rows(records({"base": 10}, "openai_math", 500), 1)
    assert consistency(scores) == [
        {"benchmark": "MATH500", "arm": "base", "ours": "10/500", "paper": "417/500", "consistent": False}
    ]


def test_a_score_over_several_samples_is_compared_as_so_many_of_the_questions() -> None:
    row = {"benchmark": "openai_math", "arm": "base", "score": 0.834, "questions": 500, "correct": 1668, "total": 2000}
    assert [(found["ours"], found["consistent"]) for found in consistency([row])] == [("417/500", True)]


def test_recovery_is_never_shown_without_its_interval() -> None:
    row = {"recovery": 0.5, "ci_low": 0.1, "ci_high": 1.2}
    assert shown_recovery(row) == "50.0 % [10.0, 120.0]"
    assert shown_recovery({**row, "ci_low": -0.0004}) == "50.0 % [0.0, 120.0]"  # zero has no sign
    assert "not bounded" in shown_recovery({**row, "ci_low": None, "ci_high": None})
    assert shown_recovery({**row, "recovery": None}) == "no gain to recover"
    assert shown_recovery(None) == "arm missing"


def test_ungraded_answers_withhold_the_score_and_give_bounds() -> None:
    rows = records({"base": 3, "lora": 4}, "openai_math", 10)
    rows[5]["correct"] = None
    base, lora = score_rows(rows, 1)
    assert (base["score"], base["correct"], base["ungraded"], base["highest"]) == (None, 3, 1, 0.4)
    assert lora["score"] == 0.4
    assert table_1([base, lora], [])[0]["base"] == "0.300 to 0.400 (1 ungraded)"
    assert pair_rows(rows, 1) == []


def test_the_counts_of_a_score_by_hand() -> None:
    rows = records({"base": 2}, "openai_math", 4)
    rows[1] |= {"question_id": "0", "strict_correct": False, "graded_by": "default", "rule": "whole", "tokens": 30}
    rows[2] |= {"rule": "whole"}
    rows[3] |= {"truncated": True, "rule": "empty", "tokens": 50}
    (row,) = score_rows(rows, 2)
    assert (row["questions"], row["total"], row["correct"], row["score"]) == (3, 4, 2, pytest.approx(1 / 3))
    assert (row["strict_correct"], row["strict_score"], row["defaulted"]) == (1, 0.25, 1)
    assert (row["truncated"], row["empty"], row["unmarked"], row["mean_tokens"]) == (1, 1, 2, 25)


def test_a_pair_of_arms_counts_what_the_second_gains() -> None:
    (row,) = pair_rows(records({"base": 1, "lora": 3}, "openai_math", 4), 1)
    assert (row["first"], row["second"], row["only_first"], row["only_second"]) == ("base", "lora", 0, 2)
    assert (row["p_value"], row["difference"]) == (0.5, 0.5)


def test_the_paper_reports_nothing_about_the_mini_world() -> None:
    assert published("mini_hard", "base") is None
    assert published("openai_math", "early_checkpoint") is None


def test_a_mini_benchmark_prints_the_paper_beside_it_and_is_never_compared_with_it() -> None:
    scores = score_rows(records({"base": 25, "lora": 166, "full_finetune": 194}, "mini_hard", 200), 1)
    (row,) = table_1(scores, [])
    assert row["benchmark"] == "Mini hard (AIME'24 no figures)"
    assert (row["base_paper"], row["lora_paper"], row["full_finetune_paper"]) == (0.2333, 0.5, 0.6)
    assert row["recovery_paper"] == RECOVERED["aime24_nofigures"]
    assert consistency(scores) == []
