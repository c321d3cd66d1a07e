"""`benchmark_scores` in Dagster, with a check: every answer is graded, and no score is unlike the paper's."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.benchmarks.config import BENCHMARK_SCORES
from dagster_project.materialize import Check, experiment_asset
from dagster_project.metadata import table_metadata


def _graded_and_consistent(metrics: Mapping[str, Any]) -> dg.AssetCheckResult:
    """An answer without a grade is an error, a score unlike the paper's a warning."""
    rows, ungraded = metrics["consistency"], metrics["num_ungraded"]
    said = [f"{ungraded} answers are ungraded"] if ungraded else []
    said += [
        f"{row['benchmark']} {row['arm']}: {row['ours']}, paper {row['paper']}" for row in rows if not row["consistent"]
    ]
    agrees = f"{len(rows)} scores agree" if rows else "the paper reports none of these"
    return dg.AssetCheckResult(
        passed=not said,
        severity=dg.AssetCheckSeverity.ERROR if ungraded else dg.AssetCheckSeverity.WARN,
        description="; ".join(said) or agrees,
        metadata={"scores": table_metadata(rows)} if rows else {},
    )


CHECKS = (
    Check(
        "graded_and_consistent_with_the_paper",
        "No answer was left ungraded by a judge, and every score that the paper reports too may be the same rate as "
        "the paper's (95 % interval of the difference).",
        _graded_and_consistent,
    ),
)
benchmark_scores = experiment_asset(
    BENCHMARK_SCORES,
    description="Base, LoRA, full finetune and ablated LoRA on the benchmarks, with intervals (paper: Tables 1 and 2).",
    kinds={"huggingface", "parquet"},
    checks=CHECKS,
)

ASSETS = [benchmark_scores]
