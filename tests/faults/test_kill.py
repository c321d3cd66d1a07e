"""Five kills at random moments of one run, each of another kind; `make soak` does a hundred, over all assets."""

from pathlib import Path

import pytest

from tests.faults.killing import WAYS, Plan, branch, half_made, play
from tests.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SEED = 7
SHARE = 0.4
"""Quiet cores finish sooner than the estimate says; a round should see most of its kills."""


def test_a_run_killed_five_times_ends_with_the_artifacts_of_an_undisturbed_one(
    tiny: Installation, tmp_path: Path
) -> None:
    plan = Plan(("interpretations", "interpretation_scores", "feature_categories"), WAYS, SEED, share=SHARE)
    seen = play(plan, tiny, tmp_path)
    assert seen.faults == [], f"seed {SEED}, kills {seen.kills}; logs in {tmp_path}"
    assert len(seen.kills) >= 2, "a run that ends before its moment ends the round"


def test_the_harness_sees_an_artifact_without_its_manifest(tiny: Installation, tmp_path: Path) -> None:
    broken = branch(tiny, tmp_path, [])
    [folder] = (broken.home / "store" / "s1k_dataset").iterdir()
    (folder / "manifest.json").unlink()
    assert list(half_made(broken.home)) == [folder]
