"""The paper room's assets in Dagster: one report per experiment, one comparison over all of them."""

import dagster as dg

from assets.paper.config import PAPER_REPORT
from dagster_project.compare import MOST, compare_experiments, computed_experiments
from dagster_project.materialize import OWNERS, experiment_asset
from dagster_project.metadata import table_metadata
from resources.home import Home

paper_report = experiment_asset(
    PAPER_REPORT,
    description="The paper's tables, figures and claims from our artifacts, each beside the published number.",
    kinds={"html", "vegalite"},
)


@dg.asset(
    group_name="paper",
    description=f"What differs between all computed experiments (at most {MOST}), and what came of it.",
    kinds={"table"},
    owners=OWNERS,
    deps=[dg.AssetDep(PAPER_REPORT.asset, partition_mapping=dg.AllPartitionMapping())],
)
def experiment_comparison(home: dg.ResourceParam[Home]) -> dg.MaterializeResult:
    """The same tables as `lorascope compare`."""
    names = computed_experiments(home)[:MOST]
    if len(names) < 2:
        return dg.MaterializeResult(metadata={"experiments": f"{len(names)} computed; a comparison needs two"})
    found = compare_experiments(home, names)
    return dg.MaterializeResult(
        metadata={
            "experiments": ", ".join(names),
            "parameters": table_metadata(found.parameters),
            "numbers": table_metadata(found.numbers),
        }
    )


ASSETS = [paper_report, experiment_comparison]
CHECKS = []
