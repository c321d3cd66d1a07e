"""The paper room's assets in Dagster: a report per experiment with a check of its claims, and a comparison of all."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import dagster as dg

from assets.paper.claims import as_read
from assets.paper.config import PAPER_REPORT
from dagster_project.compare import MOST, compare_experiments, computed_experiments, write_comparison
from dagster_project.failure import failing_in_words
from dagster_project.materialize import OWNERS, Check, experiment_asset
from dagster_project.metadata import charts, table_metadata
from dagster_project.serve import COMPARISON
from resources.home import Home


def _read(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A share of 0.011 beside 0.0256 % passes for the smaller one."""
    return {**metrics, "claims": [as_read(row) for row in metrics["claims"]]}


def _claims_agree(metrics: Mapping[str, Any]) -> dg.AssetCheckResult:
    """One that cannot be compared or was not measured is no difference."""
    rows = _read(metrics)["claims"]
    off = [row for row in rows if row["verdict"] in ("differs", "pattern differs")]
    said = "; ".join(f"{row['statement']}: the paper has {row['expected']}, measured {row['measured']}" for row in off)
    return dg.AssetCheckResult(
        passed=not off,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(off)} of {len(rows)} differ: {said}" if off else f"none of {len(rows)} differs",
        metadata={"claims": table_metadata(rows)},
    )


# One check, not one a claim: each makes an all-hit run about 2 % longer.
CHECKS = (
    Check("claims_agree", "No claim of the paper that can be compared comes out differently here.", _claims_agree),
)
paper_report = experiment_asset(
    PAPER_REPORT,
    description="The paper's tables, figures and claims from our artifacts, each beside the published number.",
    kinds={"html", "vegalite"},
    checks=CHECKS,
    read=_read,
)


@dg.asset(
    group_name="paper",
    description=f"What differs between all computed experiments (at most {MOST}), and what came of it.",
    kinds={"html", "table"},
    owners=OWNERS,
    config_schema={},
    deps=[dg.AssetDep(PAPER_REPORT.asset, partition_mapping=dg.AllPartitionMapping())],
)
def experiment_comparison(home: dg.ResourceParam[Home]) -> dg.MaterializeResult:
    """The same tables as `lorascope compare`, and a page with the claims side by side."""
    with failing_in_words():
        computed = computed_experiments(home)
        names, left_out = computed[:MOST], computed[MOST:]
        if len(names) < 2:
            return dg.MaterializeResult(metadata={"experiments": f"{len(names)} computed; a comparison needs two"})
        found = compare_experiments(home, names)
        page = write_comparison(home, names, found, left_out)
    tables = {field.name: getattr(found, field.name) for field in fields(found)}
    return dg.MaterializeResult(
        metadata={
            **charts(page.parent),
            "experiments": ", ".join(names),
            **({"left_out": f"{len(left_out)}: {', '.join(left_out)}"} if left_out else {}),
            **{name: table_metadata(rows) for name, rows in tables.items() if rows},
            "page": dg.MetadataValue.url(COMPARISON),
            "file": dg.MetadataValue.path(page),
        }
    )


ASSETS = [paper_report, experiment_comparison]
