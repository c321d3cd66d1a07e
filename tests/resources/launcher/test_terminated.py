"""A run that Dagster starts although somebody has terminated it."""

from pathlib import Path

import dagster as dg
import pytest

from dagster_project.launch import launch
from resources.launcher.deployment import Deployment
from resources.launcher.rundir import RunDir
from tests.resources.launcher.conftest import build_job


def test_a_run_that_was_terminated_just_as_the_queue_let_it_go_starts_no_job(tmp_path: Path, local: Deployment) -> None:
    """As Dagster's issue 3323: it is marked as canceled, and started all the same."""
    run = RunDir(tmp_path / "run")

    @dg.asset
    def notes(context: dg.AssetExecutionContext) -> None:
        context.instance.report_run_canceled(context.run)
        context.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", context.job_name), context.run.run_id)
        launch(context, build_job(tmp_path, "succeed"), run.path, local)

    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(dg.DagsterExecutionInterruptedError, match="terminated before it began"):
            dg.materialize([notes], instance=instance)
        (record,) = instance.get_runs()
    assert record.status == dg.DagsterRunStatus.CANCELED
    assert not run.path.exists()
