"""Runs that need the same key at once compute it once, on SQLite and on PostgreSQL; a dead holder is noticed."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from dagster_project.run import prepare_instance
from resources.errors import BadInput
from resources.home import Home
from resources.sources import PROJECT
from tests.dagster_project.postgres_server import REQUIRED, Unavailable, running
from tests.installation import Installation
from tests.other_users import acting_as

PATIENCE_S = 240
NAMES = ("one", "two", "three")


def test_the_projects_instance_is_written_once_and_the_users_own_stays(tmp_path: Path) -> None:
    home = Home(tmp_path, tmp_path)
    written = prepare_instance(home) / "dagster.yaml"
    assert written.read_text() == (PROJECT / "dagster.yaml").read_text()
    written.write_text("telemetry: {enabled: false}\n")
    prepare_instance(home)
    assert written.read_text() == "telemetry: {enabled: false}\n"
    assert list(home.dagster.glob(".dagster.yaml*")) == []


@pytest.mark.parametrize("name", ["dagster.yaml", "dagster.postgres.yaml"])
def test_no_tick_of_a_sensor_without_consequence_is_kept_for_good(name: str, tmp_path: Path) -> None:
    settings = yaml.safe_load((PROJECT / name).read_text())
    settings.pop("storage", None)
    (tmp_path / "dagster.yaml").write_text(json.dumps(settings))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        days = instance.get_tick_retention_settings(InstigatorType.SENSOR)
    assert (days[TickStatus.SKIPPED], days[TickStatus.FAILURE]) == (1, 7)


def test_a_second_user_of_a_home_on_sqlite_is_refused_before_a_file_of_theirs_locks_the_first_out(public: Path) -> None:
    """SQLite makes its journal as whoever opens the database first, and the owner could no longer write."""
    home = Home(public / "home", public)
    prepare_instance(home)
    for path in home.root.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o644)
    before = set(home.dagster.rglob("*"))
    home.root.chmod(0o777)
    with acting_as(1002), pytest.raises(BadInput, match=rf"^{home.dagster}/.*\.db is another user's .* PostgreSQL"):
        prepare_instance(home)
    assert set(home.dagster.rglob("*")) == before
    prepare_instance(home)


def test_a_system_on_which_no_job_can_be_started_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BadInput, match=r"^jobs can be started on Linux only: use WSL2"):
        prepare_instance(Home(tmp_path, tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["50%41", "what?", "a*b", "[x]"])
def test_a_home_that_dagster_would_look_for_elsewhere_is_one_sentence(name: str, tmp_path: Path) -> None:
    """By a `%` or `?` SQLite opens another file; by a pattern the settings are not found, and telemetry is on."""
    with pytest.raises(BadInput, match=r"^Dagster cannot keep its files in .*: set LORASCOPE_HOME to a path without"):
        prepare_instance(Home(tmp_path / name, tmp_path))
    prepare_instance(Home(tmp_path / "100 % #ü", tmp_path))


def test_a_database_that_somebody_holds_is_one_sentence(tmp_path: Path) -> None:
    """Dagster waits for it as long as SQLite does, five seconds."""
    home = Home(tmp_path, tmp_path)
    prepare_instance(home)
    with closing(sqlite3.connect(home.dagster / "history" / "runs.db")) as viewer:
        viewer.execute("pragma locking_mode = exclusive")
        viewer.execute("begin exclusive")
        with pytest.raises(BadInput, match=rf"^a database of Dagster in {home.dagster} is held by another process"):
            prepare_instance(home)
    prepare_instance(home)


def test_an_index_that_an_unfinished_copy_left_empty_is_a_damaged_one(tmp_path: Path) -> None:
    """Dagster takes it for one of an older version, and asks for a migration in a stack trace."""
    home = Home(tmp_path, tmp_path)
    prepare_instance(home)
    (home.dagster / "history" / "runs" / "index.db").write_bytes(b"")
    with pytest.raises(BadInput, match=rf"^a database of Dagster in {home.dagster} is damaged \(index.db is empty\)"):
        prepare_instance(home)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "is not set"),
        ("postgresql+psycopg2://me:secret@127.0.0.1:1/lorascope", "leads to none: .*Connection refused"),
        ("postgres//me:secret@127.0.0.1/lorascope", "leads to none: Could not parse"),
        ("postgresql+psycopg2://me:secret@127.0.0.1:port/lorascope", "leads to none: .*'port'"),
        ("nosuchdb://me:secret@127.0.0.1/lorascope", "leads to none: .*nosuchdb"),
    ],
)
def test_a_postgresql_that_is_not_there_is_one_sentence_and_gc_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    home = Home(tmp_path, tmp_path / "experiments")
    home.experiments.mkdir()
    shutil.copy(PROJECT / "experiments" / "mini.yaml", home.experiments)
    left = home.store / ".damaged" / "s1k_dataset-a1"
    left.mkdir(parents=True)
    home.dagster.mkdir()
    shutil.copy(PROJECT / "dagster.postgres.yaml", home.dagster / "dagster.yaml")
    monkeypatch.setenv("LORASCOPE_POSTGRES", address)
    with pytest.raises(BadInput, match=f"{home.dagster}/dagster.yaml keeps .* LORASCOPE_POSTGRES {said}") as caught:
        prepare_instance(home)
    assert "secret" not in str(caught.value)
    done = Installation(home.root, home.experiments).run("gc")
    assert (done.returncode, done.stderr) == (2, f"lorascope: {caught.value}\n")
    assert left.exists()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three experiments that need the same dataset."""
    home = Home(tmp_path / "home", tmp_path / "experiments")
    home.experiments.mkdir()
    source = PROJECT / "resources" / "mini_world" / "data" / "s1k_mini"
    model = PROJECT / "resources" / "mini_world" / "model"
    for index, name in enumerate(NAMES):
        (home.experiments / f"{name}.yaml").write_text(
            f"model:\n  name: {model}\n  dtype: float32\ndataset:\n  source: {source}\n  max_rollouts: 4\n"
            f"sae:\n  seed: {index}\ncompute:\n  profile: cpu\n"
        )
    return home


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What the instance of `home` keeps its runs and events in."""
    if request.param == "sqlite":
        yield "sqlite"
        return
    try:
        with running() as address:
            home.dagster.mkdir(parents=True)
            shutil.copy(PROJECT / "dagster.postgres.yaml", home.dagster / "dagster.yaml")
            monkeypatch.setenv("LORASCOPE_POSTGRES", address)
            yield "postgres"
    except Unavailable as reason:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(str(reason))


class Runs:
    """`lorascope run` in several processes; their workers note that they were started, and wait to be let go."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home, self.folder = home, folder
        self.launches, self.go = folder / "launches", folder / "go"
        python = folder / "patient-python"
        python.write_text(
            f"#!/bin/sh\necho $$ >> {self.launches}\nwhile [ ! -e {self.go} ]; do sleep 0.1; done\n"
            f'exec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        (folder / "compute.yaml").write_text(f"python: {python}\ngpus: 0\nlease_folder: {folder}/leases\n")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, experiment: str) -> None:
        environment = {
            **os.environ,
            "LORASCOPE_HOME": str(self.home.root),
            "LORASCOPE_EXPERIMENTS": str(self.home.experiments),
            "LORASCOPE_COMPUTE": str(self.folder / "compute.yaml"),
        }
        command = [Path(sys.executable).with_name("lorascope"), "run", experiment, "s1k_dataset", "--json"]
        with (self.folder / f"{experiment}.out").open("w") as out, (self.folder / f"{experiment}.log").open("w") as log:
            self.processes[experiment] = subprocess.Popen(
                command, env=environment, stdout=out, stderr=log, start_new_session=True
            )

    def log(self, experiment: str) -> str:
        return (self.folder / f"{experiment}.log").read_text()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds; no run may end of itself meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            ended = [name for name, process in self.processes.items() if process.poll() not in (None, -signal.SIGKILL)]
            assert not ended and time.monotonic() < deadline, {name: self.log(name)[-2000:] for name in self.processes}
            time.sleep(0.1)

    def num_launched(self) -> int:
        return len(self.launches.read_text().split()) if self.launches.exists() else 0

    def cache(self, experiment: str) -> str:
        """How the run got its dataset, once it has ended well."""
        assert self.processes[experiment].wait(PATIENCE_S) == 0, self.log(experiment)[-3000:]
        return json.loads((self.folder / f"{experiment}.out").read_text())["s1k_dataset"]


@pytest.fixture
def runs(home: Home, tmp_path: Path) -> Iterator[Runs]:
    found = Runs(home, tmp_path)
    yield found
    found.go.touch()
    for process in found.processes.values():
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.slow
def test_runs_that_need_the_same_key_compute_it_once_and_outlive_its_holder(
    home: Home, storage: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.start("one")
    runs.wait(lambda: runs.num_launched() == 1)
    runs.start("two")
    runs.start("three")
    holder = f"s1k_dataset is being computed by one (process {runs.processes['one'].pid} on "
    runs.wait(lambda: holder in runs.log("two") and holder in runs.log("three"))
    runs.processes["one"].send_signal(signal.SIGKILL)
    runs.wait(lambda: runs.num_launched() == 2)
    runs.wait(lambda: "computed by two" in runs.log("three") or "computed by three" in runs.log("two"))
    runs.go.touch()
    assert sorted(runs.cache(name) for name in ("two", "three")) == ["computed", "hit"]
    assert runs.num_launched() == 2
    monkeypatch.setenv("DAGSTER_HOME", str(home.dagster))
    with dg.DagsterInstance.get() as instance:
        succeeded = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
        records = instance.fetch_materializations(dg.AssetKey("s1k_dataset"), limit=9).records
        assert storage in type(instance.run_storage).__name__.lower()
    assert sorted(run.tags["dagster/partition"] for run in succeeded) == ["three", "two"]
    made = [record.asset_materialization for record in records if record.asset_materialization]
    assert len(made) == 2 and len({(one.tags or {})["dagster/data_version"] for one in made}) == 1
    assert ((home.dagster / "history").exists(), storage == "sqlite") in ((True, True), (False, False))


@pytest.mark.slow
def test_a_run_that_was_killed_takes_no_place_in_the_queue_of_the_ui(home: Home, runs: Runs) -> None:
    runs.start("one")
    runs.wait(lambda: runs.num_launched() == 1)
    with dg.DagsterInstance.from_config(str(prepare_instance(home))) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.STARTED]
    runs.processes["one"].send_signal(signal.SIGKILL)
    runs.processes["one"].wait()
    with dg.DagsterInstance.from_config(str(prepare_instance(home))) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]


@pytest.mark.parametrize("begun", [True, False], ids=["half-made by a killed run", "made by an older Lorascope"])
def test_tables_that_a_killed_run_half_made_are_made_anew_and_older_ones_stay(tmp_path: Path, begun: bool) -> None:
    home = Home(tmp_path / "home", tmp_path)
    with dg.DagsterInstance.from_config(str(prepare_instance(home))) as instance:
        instance.add_dynamic_partitions("experiment", ["e"])
    (home.dagster / ".made").unlink()
    if begun:
        for path in home.dagster.rglob("*.db*"):
            path.unlink()
        (home.dagster / "history" / "runs" / "index.db").touch()
        (home.dagster / ".begun").touch()
    with dg.DagsterInstance.from_config(str(prepare_instance(home))) as instance:
        assert instance.get_dynamic_partitions("experiment") == ([] if begun else ["e"])
