"""The asset's checks, run by Dagster on a manifest."""

from pathlib import Path

import dagster as dg
import pytest

from assets.benchmarks.asset import CHECKS, benchmark_scores
from dagster_project.materialize import claims_of_the_run
from resources.home import Home
from resources.launcher.deployment import load_deployment
from resources.manifest import Manifest, write_manifest

AGREES = {"benchmark": "MATH500", "arm": "base", "ours": "417/500", "paper": "417/500", "consistent": True}
DIFFERS = AGREES | {"arm": "lora", "ours": "100/500", "paper": "455/500", "consistent": False}


def run_checks(folder: Path, metrics: dict) -> dict[str, dg.AssetCheckEvaluation]:
    """What the checks say of an artifact with these metrics."""
    manifest = Manifest(
        asset="benchmark_scores",
        key="k",
        code_version=1,
        experiment="mini",
        sections={},
        section_versions={},
        inputs={},
        files={},
        metrics=metrics,
        columns=[],
        seconds=1.0,
        device="cpu",
        packages={},
        created="",
    )
    write_manifest(folder, manifest)
    with dg.instance_for_test(temp_dir=str(folder)) as instance:
        for partition, where in (("other", folder / "elsewhere"), ("mini", folder)):
            place = dg.MetadataValue.path(where)
            event = dg.AssetMaterialization("benchmark_scores", partition=partition, metadata={"folder": place})
            instance.report_runless_asset_event(event)
        job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*CHECKS))
        resources = {"home": Home(folder, folder), "h200_node": load_deployment(), "claims": claims_of_the_run}
        defs = dg.Definitions([benchmark_scores], asset_checks=CHECKS, jobs=[job], resources=resources)
        result = defs.resolve_job_def("checks").execute_in_process(instance=instance)
        return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_scores_that_agree_pass(tmp_path: Path) -> None:
    found = run_checks(tmp_path, {"consistency": [AGREES], "num_ungraded": 0})
    assert found["consistent_with_the_paper"].passed
    assert found["consistent_with_the_paper"].description == "1 scores agree"
    assert found["every_answer_is_graded"].passed


def test_a_score_that_differs_warns_and_is_named(tmp_path: Path) -> None:
    found = run_checks(tmp_path, {"consistency": [AGREES, DIFFERS], "num_ungraded": 3})
    check = found["consistent_with_the_paper"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "MATH500 lora: 100/500, paper 455/500"
    assert not found["every_answer_is_graded"].passed


def test_the_mini_world_has_nothing_to_disagree_with(tmp_path: Path) -> None:
    found = run_checks(tmp_path, {"consistency": [], "num_ungraded": 0})
    assert found["consistent_with_the_paper"].description == "the paper reports none of these"


@pytest.mark.parametrize("check", CHECKS)
def test_checks_belong_to_the_asset(check: dg.AssetChecksDefinition) -> None:
    assert {spec.asset_key for spec in check.check_specs} == {dg.AssetKey("benchmark_scores")}
