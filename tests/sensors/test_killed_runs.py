"""While the UI is open, a run that was killed outright ends, whoever started it."""

from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from dagster_project.materialize import claims_of_the_run
from dagster_project.process import PROCESS_TAG, process_tag
from resources.home import Home
from sensors.killed_runs import killed_runs
from sensors.run_failed import run_failed
from tests.dagster_project.test_process import HOST, dead_process, empty_job


def tick(instance: dg.DagsterInstance) -> str | None:
    skipped = killed_runs(dg.build_sensor_context(instance=instance))
    assert isinstance(skipped, dg.SkipReason)
    return skipped.skip_message


def test_a_killed_run_fails_at_the_next_tick_and_is_left_alone_after_it() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = str(uuid4())
        tags = {PROCESS_TAG: f"{HOST}/{dead_process()}/{run_id}"}
        instance.create_run_for_job(empty_job, run_id=run_id, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert tick(instance) == f"failed {run_id}"
        run = instance.get_run_by_id(run_id)
        assert run is not None and run.status == dg.DagsterRunStatus.FAILURE
        assert tick(instance) == "every unfinished run has its process"


def test_the_digest_of_a_run_without_a_failed_asset_says_why_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = str(uuid4())
        tags = {PROCESS_TAG: f"{HOST}/{dead_process()}/{run_id}"}
        instance.create_run_for_job(empty_job, run_id=run_id, tags=tags, status=dg.DagsterRunStatus.STARTED)
        tick(instance)
        run = instance.get_run_by_id(run_id)
        (event,) = [
            entry.dagster_event
            for entry in instance.all_logs(run_id)
            if entry.dagster_event is not None and entry.dagster_event.is_run_failure
        ]
        assert run is not None
        with dg.build_run_status_sensor_context("run_failed", event, instance, run) as context:
            run_failed(context.for_run_failure())
    text = (tmp_path / "failures" / f"{run_id}.md").read_text()
    assert "which worked on this run, was killed: run it again, what is finished is kept" in text


def test_a_run_that_the_ui_started_notes_its_process_when_its_first_asset_begins(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(empty_job, status=dg.DagsterRunStatus.STARTED)
        with dg.build_resources(
            {"home": Home(tmp_path, tmp_path), "claims": claims_of_the_run}, instance, dagster_run=run
        ):
            found = instance.get_run_by_id(run.run_id)
            assert found is not None and found.tags.items() >= process_tag(run.run_id).items()
            assert tick(instance) == "every unfinished run has its process"
