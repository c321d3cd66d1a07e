"""`lorascope run`: every asset of an experiment through Dagster, in this process, with the same instance as the UI."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
from sqlalchemy.exc import IntegrityError

from assets.paper.beside import upright
from dagster_project.experiment import Experiment
from dagster_project.failure import reason
from dagster_project.instance import MADE, opened
from dagster_project.jobs import whole_paper
from dagster_project.materialize import PARTITIONS
from dagster_project.observe import observations
from dagster_project.plan import keys
from dagster_project.preflight import check
from dagster_project.process import fail_killed_runs, process_tag
from dagster_project.rooms import STAGES
from dagster_project.tables import text_table
from resources.errors import BadInput
from resources.home import Home
from resources.launcher.deployment import load_deployment
from resources.lock import held
from resources.sources import PROJECT
from resources.store import Store
from resources.whole import write_whole


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    experiment: Experiment
    home: Home
    success: bool
    caches: dict[str, str]
    """Asset -> hit or computed, for what succeeded."""
    failures: dict[str, str]
    """Asset -> its error."""

    def row(self) -> dict[str, object]:
        """As JSON."""
        said = {"failures": self.failures} if self.failures else {}
        return {"experiment": self.experiment.name, "success": self.success, **self.caches, **said}

    def summary(self) -> str:
        """Tables 1 and 2 beside the paper's, and where to look next."""
        tables = self._tables() if "benchmark_scores" in self.caches else []
        failed = [f"{asset} failed: {error}" for asset, error in self.failures.items()]
        return "\n".join([*tables, *self._places(), *failed])

    def _tables(self) -> list[str]:
        asset = "benchmark_scores"
        manifest = Store(self.home.store).peek(asset, keys(self.experiment)[asset])
        titles = {
            "table_1": "Table 1: what the rank-1 LoRA recovers",
            "table_2": "Table 2: without attention, without MLP",
        }
        tables = {title: upright(manifest.rows(name)) for name, title in titles.items()} if manifest else {}
        return [text_table(rows, title) + "\n" for title, rows in tables.items() if rows]

    def _places(self) -> list[str]:
        hits = sum(cache == "hit" for cache in self.caches.values())
        lines = [f"{self.experiment.name}: {len(self.caches)} assets, {hits} from the store"]
        found = keys(self.experiment)
        for asset, name in (("paper_report", "report"), ("feature_dashboard", "dashboard")):
            page = Store(self.home.store).folder(asset, found[asset]) / "index.html"
            if page.exists():
                lines.append(f"{name:10}{page}")
        return [*lines, f"{'UI':10}make ui"]


def prepare_instance(home: Home) -> Path:
    """DAGSTER_HOME with an instance configuration in it: the user's own, else the project's.

    Runs that were killed outright are finished in it.

    Raises:
        BadInput: when its database cannot be opened, or no job can be started on this system.
    """
    if sys.platform != "linux":
        raise BadInput("jobs can be started on Linux only: use WSL2 on Windows, and a Linux container on a Mac")
    home.dagster.mkdir(parents=True, exist_ok=True)
    present = home.dagster / "dagster.yaml"
    if not present.exists():
        write_whole(present, (PROJECT / "dagster.yaml").read_text())
    _make_tables(home.dagster)
    with opened(home.dagster) as instance:
        fail_killed_runs(instance)
    return home.dagster


def _make_tables(folder: Path) -> None:
    """Dagster makes its tables when an instance is opened first; several processes that do so at once get in the way
    of each other, and one that is killed leaves files without tables, which Dagster never completes.
    """
    made, begun = folder / MADE, folder / ".begun"
    if made.exists():
        return
    with held(folder / ".making", "the first run", lambda _: None):
        if made.exists():
            return
        present = list(folder.rglob("*.db*"))
        if begun.exists():
            for file in present:
                file.unlink()
        elif not present:
            begun.touch()
        with opened(folder):
            made.touch()
        begun.unlink(missing_ok=True)


def add_partition(instance: dg.DagsterInstance, name: str) -> None:
    """Make an experiment a partition, if it is none.

    Dagster looks and then inserts: of two processes that do so at once, the later one is refused by the database.
    """
    try:
        instance.add_dynamic_partitions(PARTITIONS, [name])
    except IntegrityError:
        if not instance.has_dynamic_partition(PARTITIONS, name):
            raise


def run_experiment(experiment: Experiment, home: Home, assets: Sequence[str] = ()) -> Outcome:
    """Materialise the assets (all when none are named) of one experiment on the instance that the UI shows.

    Raises:
        BadInput: before anything starts, naming each thing that is missing.
    """
    wanted = [stage for stage in STAGES if not assets or stage.asset in assets]
    check(experiment, home, load_deployment(), wanted)
    os.environ["DAGSTER_HOME"] = str(prepare_instance(home))
    from dagster_project.definitions import defs

    run_id = str(uuid4())
    with opened(home.dagster) as instance:
        add_partition(instance, experiment.name)
        for observation in observations(experiment, home, instance):
            instance.report_runless_asset_event(observation)
        result = defs.resolve_job_def(whole_paper.name).execute_in_process(
            instance=instance,
            partition_key=experiment.name,
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
            raise_on_error=False,
            run_config={"loggers": {"console": {}}},
            run_id=run_id,
            tags=process_tag(run_id),
        )
    return Outcome(experiment, home, result.success, _caches(result), _failures(result))


def _caches(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    made = [event.materialization for event in result.get_asset_materialization_events()]
    return {one.asset_key.to_user_string(): str(one.metadata["cache"].value) for one in made}


def _failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        event.step_key or "": reason(event)
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.error is not None
    }
