"""What the asset's checks say of its metrics."""

import dagster as dg

from assets.benchmarks.asset import CHECKS

AGREES = {"benchmark": "MATH500", "arm": "base", "ours": "417/500", "paper": "417/500", "consistent": True}
DIFFERS = AGREES | {"arm": "lora", "ours": "100/500", "paper": "455/500", "consistent": False}


def judged(metrics: dict) -> dict[str, dg.AssetCheckResult]:
    return {check.name: check.judge(metrics) for check in CHECKS}


def test_scores_that_agree_pass() -> None:
    found = judged({"consistency": [AGREES], "num_ungraded": 0})
    assert found["consistent_with_the_paper"].passed
    assert found["consistent_with_the_paper"].description == "1 scores agree"
    assert found["every_answer_is_graded"].passed


def test_a_score_that_differs_warns_and_is_named() -> None:
    found = judged({"consistency": [AGREES, DIFFERS], "num_ungraded": 3})
    check = found["consistent_with_the_paper"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "MATH500 lora: 100/500, paper 455/500"
    assert not found["every_answer_is_graded"].passed


def test_the_mini_world_has_nothing_to_disagree_with() -> None:
    found = judged({"consistency": [], "num_ungraded": 0})
    assert found["consistent_with_the_paper"].description == "the paper reports none of these"
