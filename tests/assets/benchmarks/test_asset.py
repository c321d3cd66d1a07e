"""What the asset's check says of its metrics."""

import dagster as dg

from assets.benchmarks.asset import CHECKS

AGREES = {"benchmark": "MATH500", "arm": "base", "ours": "417/500", "paper": "417/500", "consistent": True}
DIFFERS = AGREES | {"arm": "lora", "ours": "100/500", "paper": "455/500", "consistent": False}


def judged(metrics: dict) -> dg.AssetCheckResult:
    [check] = CHECKS
    return check.judge(metrics)


def test_graded_scores_that_agree_pass() -> None:
    check = judged({"consistency": [AGREES], "num_ungraded": 0})
    assert (check.passed, check.description) == (True, "1 scores agree")


def test_a_score_that_differs_warns_and_is_named() -> None:
    check = judged({"consistency": [AGREES, DIFFERS], "num_ungraded": 0})
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "MATH500 lora: 100/500, paper 455/500"


def test_an_ungraded_answer_is_an_error_beside_which_a_difference_is_named_too() -> None:
    check = judged({"consistency": [AGREES, DIFFERS], "num_ungraded": 3})
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert check.description == "3 answers are ungraded; MATH500 lora: 100/500, paper 455/500"


def test_the_mini_world_has_nothing_to_disagree_with() -> None:
    check = judged({"consistency": [], "num_ungraded": 0})
    assert (check.passed, check.description) == (True, "the paper reports none of these")
