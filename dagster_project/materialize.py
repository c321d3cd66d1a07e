"""How a stage becomes a Dagster asset: partitioned by experiment, cached exactly, computed in a worker."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg

from dagster_project.claim import Claims
from dagster_project.compute_asset import obtain
from dagster_project.launch import launch
from dagster_project.metadata import metadata
from resources.errors import BadInput
from resources.home import Home
from resources.job import Job, JobResult
from resources.launcher.deployment import Deployment
from resources.stage import Stage
from resources.store import Store

EXPERIMENTS = dg.DynamicPartitionsDefinition(name="experiment")
OWNERS = ["team:lorascope"]


def params_key(section: str) -> dg.AssetKey:
    """The external asset that stands for one section of the experiment files."""
    return dg.AssetKey(["params", section])


@dg.resource(required_resource_keys={"home"}, description="The run's experiment, as it stood when the run began.")
def claims_of_the_run(context: dg.InitResourceContext) -> Iterator[Claims]:
    """One reading of the experiment for all assets of a run; the in-process executor keeps it until the run ends."""
    found = Claims(context.resources.home, context.run_id or "no-run")
    try:
        yield found
    finally:
        found.close()


def experiment_asset(stage: Stage, *, description: str, kinds: set[str]) -> dg.AssetsDefinition:
    """The Dagster asset of a stage; its data version is the artifact's key."""

    @dg.asset(
        name=stage.asset,
        group_name=stage.room,
        description=description,
        kinds=kinds,
        owners=OWNERS,
        partitions_def=EXPERIMENTS,
        deps=[*stage.inputs, *(params_key(section) for section in stage.sections)],
        code_version=str(stage.code_version),
        tags=_tags(stage),
    )
    def compute(
        context: dg.AssetExecutionContext,
        home: dg.ResourceParam[Home],
        h200_node: dg.ResourceParam[Deployment],
        claims: dg.ResourceParam[Claims],
    ) -> dg.MaterializeResult:
        def run(job: Job, run_dir: Path) -> JobResult:
            return launch(context, job, run_dir, h200_node)

        try:
            claim = claims.of(context.partition_key, context.log.info)
            done = obtain(stage, claim, Store(home.store), home, context.log.info, run)
        except BadInput as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(
            f"{stage.asset}: {done.cache} ({done.manifest.seconds:.1f} s of work, key {done.manifest.key})"
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(done.manifest.key),
            metadata=metadata(done.manifest, done.folder, done.cache),
        )

    return compute


def _tags(stage: Stage) -> Mapping[str, str]:
    return {"lorascope/gpus": str(stage.needs.gpus)} if stage.needs.gpus else {}
