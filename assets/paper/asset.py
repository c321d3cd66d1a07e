"""The paper room's assets in Dagster: a report per experiment, a comparison of all, and one check per claim."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.paper.claims import CLAIMS, spoken
from assets.paper.config import PAPER_REPORT
from dagster_project.compare import MOST, compare_experiments, computed_experiments, write_comparison
from dagster_project.materialize import OWNERS, experiment_asset
from dagster_project.metadata import charts, table_metadata
from dagster_project.serve import COMPARISON
from resources.home import Home
from resources.manifest import read_manifest

paper_report = experiment_asset(
    PAPER_REPORT,
    description="The paper's tables, figures and claims from our artifacts, each beside the published number.",
    kinds={"html", "vegalite"},
)


@dg.asset(
    group_name="paper",
    description=f"What differs between all computed experiments (at most {MOST}), and what came of it.",
    kinds={"html", "table"},
    owners=OWNERS,
    deps=[dg.AssetDep(PAPER_REPORT.asset, partition_mapping=dg.AllPartitionMapping())],
)
def experiment_comparison(home: dg.ResourceParam[Home]) -> dg.MaterializeResult:
    """The same tables as `lorascope compare`, and a page with the claims side by side."""
    names = computed_experiments(home)[:MOST]
    if len(names) < 2:
        return dg.MaterializeResult(metadata={"experiments": f"{len(names)} computed; a comparison needs two"})
    found = compare_experiments(home, names)
    page = write_comparison(home, names, found)
    return dg.MaterializeResult(
        metadata={
            **charts(page.parent),
            "experiments": ", ".join(names),
            "parameters": table_metadata(found.parameters),
            "numbers": table_metadata(found.numbers),
            "frontier": table_metadata(found.frontier),
            "agreement": table_metadata(found.agreement),
            "page": dg.MetadataValue.url(COMPARISON),
            "file": dg.MetadataValue.path(page),
        }
    )


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(claim.id, asset=PAPER_REPORT.asset, description=claim.statement) for claim in CLAIMS]
)
def claims_of_the_paper(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Each claim against the report made last; one that cannot be compared or was not measured does not fail."""
    # Checks have no partitions of their own (a preview in Dagster 1.13); they run right after the asset's.
    event = context.instance.get_latest_materialization_event(dg.AssetKey(PAPER_REPORT.asset))
    assert event is not None
    assert event.asset_materialization is not None
    rows = read_manifest(Path(str(event.asset_materialization.metadata["folder"].value))).metrics["claims"]
    assert isinstance(rows, list)
    by_id = {row["id"]: row for row in rows if isinstance(row, dict)}
    for claim in CLAIMS:
        row = by_id[claim.id]
        found = {name: row[name] for name in ("measured", "low", "high")}
        shown = {n: spoken(value, claim.percent) for n, value in found.items() if isinstance(value, int | float)}
        yield dg.AssetCheckResult(
            check_name=claim.id,
            asset_key=PAPER_REPORT.asset,  # without it Dagster looks the report up twice per claim
            passed=row["verdict"] not in ("differs", "pattern differs"),
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{row['verdict']}: the paper has {row['expected']}, measured {shown.get('measured', '–')}",
            metadata={**{name: str(row[name]) for name in ("verdict", "expected", "where")}, **shown},
        )


ASSETS = [paper_report, experiment_comparison]
CHECKS = [claims_of_the_paper]
