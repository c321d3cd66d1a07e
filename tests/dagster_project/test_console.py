"""The terminal says of every finished asset whether the store had it, what it took and under which key it lies."""

from pathlib import Path

import dagster as dg
import pytest

from assets.dataset.asset import s1k_dataset
from dagster_project.definitions import defs
from dagster_project.plan import keys
from resources.home import Home
from tests.dagster_project.edits import EDITS, fake_run, load


def test_a_finished_asset_is_one_line_that_tells_a_hit_from_what_was_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, experiment = Home(tmp_path / "home", tmp_path), load(tmp_path, dict.fromkeys(EDITS, 0))
    play = fake_run([])
    monkeypatch.setattr("dagster_project.materialize.launch", lambda _context, job, folder, _node: play(job, folder))
    resources = {**(defs.resources or {}), "home": home}
    here = dg.Definitions(assets=[s1k_dataset], resources=resources, loggers=defs.loggers)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("experiment", ["e"])
        for cache in ("computed", "hit"):
            here.resolve_implicit_global_asset_job_def().execute_in_process(
                run_config={"loggers": {"console": {}}}, instance=instance, partition_key="e"
            )
            said = capsys.readouterr().err
            key = keys(experiment)["s1k_dataset"]
            assert f"  s1k_dataset               {cache} (1.0 s of work, key {key})\n" in said
