"""How a stage becomes a Dagster asset: partitioned by experiment, cached exactly, computed in a worker."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    DATA_VERSION_TAG,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from dagster_project.claim import Claim, Claims
from dagster_project.compute_asset import obtain
from dagster_project.failure import failing_in_words
from dagster_project.launch import launch
from dagster_project.metadata import metadata
from dagster_project.preflight import check
from dagster_project.process import process_tag
from dagster_project.rooms import STAGES
from dagster_project.wanted import Wanted, unbroken
from resources.home import Home
from resources.job import Job, JobResult
from resources.launcher.deployment import Deployment
from resources.stage import Stage
from resources.store import Store

PARTITIONS = "experiment"
"""Dagster's name of the partitions: each experiment is one."""
EXPERIMENTS = dg.DynamicPartitionsDefinition(name=PARTITIONS)
OWNERS = ["team:lorascope"]
LOOKED_BACK = 50
"""Observations of a section, newest first, among which the one that a run began with is looked for."""


def params_key(section: str) -> dg.AssetKey:
    """The external asset that stands for one section of the experiment files."""
    return dg.AssetKey(["params", section])


@dg.resource(required_resource_keys={"home"}, description="The run's experiment, as it stood when the run began.")
def claims_of_the_run(context: dg.InitResourceContext) -> Iterator[Claims]:
    """One reading of the experiment for all assets of a run; the in-process executor keeps it until the run ends.

    The run notes which process works on it, wherever it was started from.
    """
    assert context.run is not None and context.instance is not None  # only a run asks for it
    with unbroken():
        context.instance.add_run_tags(context.run.run_id, process_tag(context.run.run_id))
    found = Claims(context.resources.home, context.run.run_id)
    try:
        yield found
    finally:
        found.close()


@dataclass(frozen=True)
class Check:
    """A statement about an artifact, judged from its metrics whenever it is materialised, hit or computed.

    The asset judges it itself: a check of its own would take a step and look the artifact up by what was made last,
    which may be another experiment's.
    """

    name: str
    statement: str
    judge: Callable[[Mapping[str, Any]], dg.AssetCheckResult]
    """Takes the metrics; the result needs no name."""

    def result(self, experiment: str, metrics: Mapping[str, Any]) -> dg.AssetCheckResult:
        """The judgement with the experiment that it is of: Dagster shows a check's last result, whichever that was."""
        judged = self.judge(metrics)
        named = {"experiment": dg.MetadataValue.text(experiment), **(judged.metadata or {})}
        return judged._replace(check_name=self.name, metadata=named)


def experiment_asset(
    stage: Stage,
    *,
    description: str,
    kinds: set[str],
    checks: Sequence[Check] = (),
    read: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> dg.AssetsDefinition:
    """The Dagster asset of a stage; its data version is the artifact's key.

    `read` takes the metrics, and returns them as a person reads them.
    """

    @dg.asset(
        name=stage.asset,
        group_name=stage.room,
        description=description,
        kinds=kinds,
        owners=OWNERS,
        partitions_def=EXPERIMENTS,
        deps=[*stage.inputs, *(params_key(section) for section in stage.sections)],
        code_version=str(stage.code_version),
        config_schema={},  # takes none: without it Dagster takes any, and a hyperparameter given there changes nothing
        check_specs=[dg.AssetCheckSpec(c.name, asset=stage.asset, description=c.statement) for c in checks],
        tags={"lorascope/gpus": str(stage.needs.gpus)} if stage.needs.gpus else {},
    )
    def compute(
        context: dg.AssetExecutionContext,
        home: dg.ResourceParam[Home],
        h200_node: dg.ResourceParam[Deployment],
        claims: dg.ResourceParam[Claims],
    ) -> dg.MaterializeResult:
        def run(job: Job, run_dir: Path) -> JobResult:
            claims.check_once(claim, lambda: check(claim.experiment, home, h200_node, _stages_of(context.run)))
            return launch(context, job, run_dir, h200_node)

        say, wanted = unbroken()(context.log.info), Wanted(context.instance, context.run.run_id)
        with failing_in_words():
            claim = claims.of(context.partition_key, say)
            done = obtain(stage, claim, Store(home.store), home, say, run, wanted.pause)
        edited = claim.is_edited()
        if edited:
            say(
                f"'{claim.experiment.name}' was edited since this run began, which goes on as it was planned; "
                "run it again for the edit"
            )
        # Metadata of the result itself would be stored once more, with the step's output.
        shown = done.manifest.model_copy(update={"metrics": read(done.manifest.metrics)})
        context.add_asset_metadata(metadata(shown, done.folder, done.cache))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(done.manifest.key),
            check_results=[c.result(context.partition_key, done.manifest.metrics) for c in checks],
            tags=_read_before_the_edit(context, claim, stage) if edited else None,
        )

    return compute


def _stages_of(run: dg.DagsterRun) -> list[Stage]:
    """Those that the run computes: all, a selection, or what a re-execution has left."""
    chosen, steps = run.asset_selection, run.step_keys_to_execute
    return [
        stage
        for stage in STAGES
        if (not chosen or dg.AssetKey(stage.asset) in chosen) and (not steps or stage.asset in steps)
    ]


@unbroken()
def _read_before_the_edit(context: dg.AssetExecutionContext, claim: Claim, stage: Stage) -> dict[str, str]:
    """Dagster notes the newest observation of each section as what was read: these tags name the one that was.

    Without them an asset made from the values before an edit would pass for one that has seen it.
    """
    tags: dict[str, str] = {}
    for section in stage.sections:
        key, version = params_key(section), claim.experiment.versions[section]
        for storage_id, observed in observed_versions(context.instance, section, context.partition_key, LOOKED_BACK):
            if observed == version:
                tags[get_input_data_version_tag(key)] = version
                tags[get_input_event_pointer_tag(key)] = str(storage_id)
                break
    return tags


def observed_versions(
    instance: dg.DagsterInstance, section: str, experiment: str, count: int
) -> Iterator[tuple[int, str | None]]:
    """The last observations of a section, newest first: where each is stored, and the version that it noted."""
    wanted = dg.AssetRecordsFilter(asset_key=params_key(section), asset_partitions=[experiment])
    for record in instance.fetch_observations(wanted, limit=count).records:
        if record.asset_observation is not None:
            yield record.storage_id, record.asset_observation.tags.get(DATA_VERSION_TAG)
