"""What `lorascope run` says at its end; processes that start the same experiment at once all find its partition."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.schema import DynamicPartitionsTable
from sqlalchemy.exc import IntegrityError

from dagster_project.plan import keys
from dagster_project.rooms import STAGES
from dagster_project.run import Outcome, add_partition
from resources.home import Home
from resources.manifest import write_manifest
from resources.store import Store
from tests.dagster_project.edits import EDITS, load, run_all
from tests.installation import Installation


def insert(instance: dg.DagsterInstance, name: str) -> None:
    """What Dagster does after it has looked."""
    storage = instance.event_log_storage
    with storage.index_connection() as connection:  # pyright: ignore[reportAttributeAccessIssue]
        connection.execute(DynamicPartitionsTable.insert(), [{"partitions_def_name": "experiment", "partition": name}])


def test_a_partition_that_another_process_added_meanwhile_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.instance_for_test() as instance:
        insert(instance, "e")
        monkeypatch.setattr(instance, "add_dynamic_partitions", lambda _, names: insert(instance, *names))
        with pytest.raises(IntegrityError):
            insert(instance, "e")
        add_partition(instance, "e")
        assert instance.get_dynamic_partitions("experiment") == ["e"]


def test_a_partition_that_cannot_be_added_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_name: str, _keys: list[str]) -> None:
        raise IntegrityError("insert", {}, Exception("full"))

    with dg.instance_for_test() as instance:
        monkeypatch.setattr(instance, "add_dynamic_partitions", refused)
        with pytest.raises(IntegrityError):
            add_partition(instance, "e")


def test_a_failed_run_ends_with_its_failure_and_shows_no_table_that_it_did_not_make(tmp_path: Path) -> None:
    home, experiment = Home(tmp_path / "home", tmp_path), load(tmp_path, dict.fromkeys(EDITS, 0))
    run_all(experiment, home)
    manifest = next((home.store / "benchmark_scores").glob("*/manifest.json"))
    store, key = Store(home.store), manifest.parent.name
    found = store.find("benchmark_scores", key)
    assert found is not None
    table = {"table_1": [{"benchmark": "b", "base": 0.5}]}
    manifest.chmod(0o644)
    write_manifest(manifest.parent, found.model_copy(update={"metrics": table}))
    failed = Outcome(experiment, home, False, {"s1k_dataset": "hit"}, {"batchtopk_sae": "no room"})
    assert "Table 1" not in failed.summary()
    assert failed.summary().splitlines()[-1] == "batchtopk_sae failed: no room"
    scored = Outcome(experiment, home, True, {"benchmark_scores": "hit"}, {})
    assert scored.summary().startswith("Table 1")


def test_the_terminal_says_of_every_asset_how_it_was_come_by_and_under_which_key(tmp_path: Path) -> None:
    home, experiment = Home(tmp_path / "home", tmp_path), load(tmp_path, dict.fromkeys(EDITS, 0))
    run_all(experiment, home)
    said = Installation(home.root, tmp_path).run("run", experiment.name).stderr
    found = keys(experiment)
    for stage in STAGES:
        assert f"  {stage.asset:24}  hit (1.0 s of work, key {found[stage.asset]})\n" in said
