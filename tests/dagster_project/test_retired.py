"""A deleted experiment stays a partition until gc is asked for, from the command line and from the UI."""

from pathlib import Path

import dagster as dg
import pytest

from dagster_project.definitions import defs
from dagster_project.run import prepare_instance
from resources.home import Home
from tests.installation import Installation


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Two files, and an instance that has both and one that is gone as partitions."""
    found = Installation(tmp_path / "home", tmp_path / "experiments")
    found.experiments.mkdir()
    for name in ("mini", "mini-k8"):
        (found.experiments / f"{name}.yaml").write_text("sae:\n  k: 4\n")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_instance(Home(found.home, found.experiments))))
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("experiment", ["mini", "mini-k8", "gone"])
    return found


def partitions() -> set[str]:
    with dg.DagsterInstance.get() as instance:
        return set(instance.get_dynamic_partitions("experiment"))


def test_gc_names_the_partition_of_a_deleted_file_in_a_dry_run_and_takes_it_in_a_real_one(
    installation: Installation,
) -> None:
    dry = installation.run("gc", "--dry-run").stdout
    assert "partition gone  its file is gone" in dry
    assert partitions() == {"mini", "mini-k8", "gone"}
    assert "partition gone  its file is gone" in installation.run("gc").stdout
    assert partitions() == {"mini", "mini-k8"}


def test_the_gc_job_of_the_ui_takes_it_too(installation: Installation) -> None:
    with dg.DagsterInstance.get() as instance:
        resources = {"home": Home(installation.home, installation.experiments)}
        assert defs.resolve_job_def("gc").execute_in_process(instance=instance, resources=resources).success
    assert partitions() == {"mini", "mini-k8"}


def test_gc_makes_no_instance_where_there_is_none(tmp_path: Path) -> None:
    bare = Installation(tmp_path / "bare", tmp_path / "none")
    bare.experiments.mkdir()
    assert bare.run("gc").returncode == 0
    assert not (bare.home / "dagster").exists()
