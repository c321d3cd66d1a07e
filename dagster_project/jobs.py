"""The jobs a user finds in the UI: the whole paper, the upkeep of the store."""

import dagster as dg

from dagster_project.experiment import Experiments
from dagster_project.failure import failing_in_words
from dagster_project.process import process_tag
from dagster_project.retired import remove_retired
from dagster_project.rooms import STAGES
from dagster_project.upkeep import collect_garbage, verify_store
from resources.home import Home
from resources.store import Store


@dg.op(config_schema={})
def remove_unreachable(context: dg.OpExecutionContext, home: dg.ResourceParam[Home]) -> None:
    """Delete artifacts and partitions that no present experiment can reach, and abandoned temporary folders."""
    context.instance.add_run_tags(context.run_id, process_tag(context.run_id))
    experiments = Experiments(home.experiments)
    with failing_in_words():
        removed = collect_garbage(home, experiments, dry_run=False, say=context.log.info)
        partitions = remove_retired(context.instance, experiments)
    for item in removed:
        context.log.info(str(item))
    for name in partitions:
        context.log.info(f"partition {name}  its file is gone")
    context.log.info(f"removed {len(removed)} folders, {sum(item.size for item in removed)} bytes")


@dg.op(config_schema={})
def rehash_store(context: dg.OpExecutionContext, home: dg.ResourceParam[Home]) -> None:
    """Hash every file of the store again and fail when one differs."""
    context.instance.add_run_tags(context.run_id, process_tag(context.run_id))
    with failing_in_words():
        damage = verify_store(Store(home.store), context.log.info)
    if damage:
        raise dg.Failure("; ".join(map(str, damage)), allow_retries=False)


@dg.job(description="Remove artifacts and partitions that no present experiment can reach.")
def gc() -> None:
    """`lorascope gc`, from the UI."""
    remove_unreachable()


@dg.job(description="Hash every file of the store again and name what is damaged.")
def verify() -> None:
    """`lorascope verify`, from the UI."""
    rehash_store()


whole_paper = dg.define_asset_job(
    "whole_paper",
    selection=dg.AssetSelection.assets(*(stage.asset for stage in STAGES)),
    description="Every asset of one experiment; what is in the store already is taken from there.",
)
