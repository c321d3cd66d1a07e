"""`benchmark_scores` in Dagster, with two checks: against the paper's numbers, and that every answer is graded."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.benchmarks.config import BENCHMARK_SCORES
from dagster_project.materialize import Check, experiment_asset


def _consistent(metrics: Mapping[str, Any]) -> dg.AssetCheckResult:
    rows = metrics["consistency"]
    off = [
        f"{row['benchmark']} {row['arm']}: {row['ours']}, paper {row['paper']}" for row in rows if not row["consistent"]
    ]
    return dg.AssetCheckResult(
        passed=not off,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(off) or (f"{len(rows)} scores agree" if rows else "the paper reports none of these"),
        metadata={"scores": dg.MetadataValue.table([dg.TableRecord(row) for row in rows])} if rows else {},
    )


def _graded(metrics: Mapping[str, Any]) -> dg.AssetCheckResult:
    ungraded = metrics["num_ungraded"]
    return dg.AssetCheckResult(passed=ungraded == 0, description=f"{ungraded} answers are ungraded")


CHECKS = (
    Check(
        "consistent_with_the_paper",
        "Every score that the paper reports too may be the same rate as the paper's (95 % interval of the difference).",
        _consistent,
    ),
    Check("every_answer_is_graded", "No answer was left ungraded by a judge.", _graded),
)
benchmark_scores = experiment_asset(
    BENCHMARK_SCORES,
    description="Base, LoRA, full finetune and ablated LoRA on the benchmarks, with intervals (paper: Tables 1 and 2)",
    kinds={"huggingface", "parquet"},
    checks=CHECKS,
)

ASSETS = [benchmark_scores]
