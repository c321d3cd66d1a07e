"""A run whose process was killed outright is failed by the next one that opens the instance, and no other run is."""

import os
import socket
import subprocess
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.storage.tags import TagType, get_tag_type

from dagster_project.definitions import defs
from dagster_project.process import PROCESS_TAG, process_tag
from dagster_project.run import prepare_instance
from resources.home import Home
from resources.launcher.processes import identity
from resources.sources import PROJECT

HOST = socket.gethostname()


@dg.job
def empty_job() -> None:
    """Nothing."""


def dead_process() -> str:
    """Identity of a process that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        found = identity(process.pid)
        process.kill()
    return found


def begun(home: Home, run_id: str, tags: dict[str, str]) -> str:
    """A run that Dagster takes for one at work."""
    with dg.DagsterInstance.from_config(str(prepare_instance(home))) as instance:
        instance.create_run_for_job(empty_job, run_id=run_id, tags=tags, status=dg.DagsterRunStatus.STARTED)
    return run_id


def outcome(home: Home, run_id: str) -> tuple[dg.DagsterRunStatus, list[str]]:
    """What has become of it once another process opens the instance, and why."""
    with dg.DagsterInstance.from_config(str(prepare_instance(home))) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status, [entry.get_dagster_event().message or "" for entry in instance.all_logs(run_id)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, tmp_path)


@pytest.mark.parametrize("job", ["gc", "verify"])
def test_a_run_of_the_stores_upkeep_names_its_process_too(job: str, home: Home) -> None:
    (home.experiments / "e.yaml").write_text((PROJECT / "experiments" / "mini.yaml").read_text())
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {**(defs.resources or {}), "home": home}
        done = defs.resolve_job_def(job).execute_in_process(instance=instance, resources=resources)
        run = instance.get_run_by_id(done.run_id)
    assert run is not None
    assert run.tags[PROCESS_TAG] == process_tag(done.run_id)[PROCESS_TAG]


def test_the_ui_does_not_show_the_tag() -> None:
    assert get_tag_type(PROCESS_TAG) == TagType.HIDDEN


def test_a_run_whose_process_is_gone_has_failed_and_says_why(home: Home) -> None:
    process, run_id = dead_process(), str(uuid4())
    begun(home, run_id, {PROCESS_TAG: f"{HOST}/{process}/{run_id}"})
    status, said = outcome(home, run_id)
    assert status == dg.DagsterRunStatus.FAILURE
    assert said == [
        f"process {process.partition(':')[0]} on {HOST}, which worked on this run, was killed: run it again, "
        "what is finished is kept"
    ]
    assert outcome(home, run_id) == (status, said)


def test_a_run_whose_process_lives_goes_on(home: Home) -> None:
    run_id = str(uuid4())
    begun(home, run_id, process_tag(run_id))
    assert process_tag(run_id) == {PROCESS_TAG: f"{HOST}/{identity(os.getpid())}/{run_id}"}
    assert outcome(home, run_id) == (dg.DagsterRunStatus.STARTED, [])


@pytest.mark.parametrize("tag", ["elsewhere/{process}/{run}", f"{HOST}/{{process}}/{uuid4()}", ""])
def test_a_run_of_another_host_one_that_repeats_a_killed_one_and_one_of_the_ui_go_on(home: Home, tag: str) -> None:
    run_id = str(uuid4())
    begun(home, run_id, {PROCESS_TAG: tag.format(process=dead_process(), run=run_id)} if tag else {})
    assert outcome(home, run_id)[0] == dg.DagsterRunStatus.STARTED
