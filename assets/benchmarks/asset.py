"""`benchmark_scores` in Dagster, with two checks: against the paper's numbers, and that every answer is graded."""

from pathlib import Path
from typing import Any

import dagster as dg

from assets.benchmarks.config import BENCHMARK_SCORES
from dagster_project.materialize import experiment_asset
from resources.manifest import read_manifest

benchmark_scores = experiment_asset(
    BENCHMARK_SCORES,
    description="Base, LoRA, full finetune and ablated LoRA on the benchmarks, with intervals (paper: Tables 1 and 2)",
    kinds={"huggingface", "parquet"},
)


@dg.asset_check(asset=benchmark_scores)
def consistent_with_the_paper(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Every score that the paper reports too may be the same rate as the paper's (95 % interval of the difference)."""
    rows = _metrics(context)["consistency"]
    off = [
        f"{row['benchmark']} {row['arm']}: {row['ours']}, paper {row['paper']}" for row in rows if not row["consistent"]
    ]
    return dg.AssetCheckResult(
        passed=not off,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(off) or (f"{len(rows)} scores agree" if rows else "the paper reports none of these"),
        metadata={"scores": dg.MetadataValue.table([dg.TableRecord(row) for row in rows])} if rows else {},
    )


@dg.asset_check(asset=benchmark_scores)
def every_answer_is_graded(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """No answer was left ungraded by a judge."""
    ungraded = _metrics(context)["num_ungraded"]
    return dg.AssetCheckResult(passed=ungraded == 0, description=f"{ungraded} answers are ungraded")


def _metrics(context: dg.AssetCheckExecutionContext) -> dict[str, Any]:
    """What the artifact measured that was materialised last, from its manifest."""
    # Checks have no partitions of their own (a preview in Dagster 1.13); they run right after the asset's.
    event = context.instance.get_latest_materialization_event(dg.AssetKey(BENCHMARK_SCORES.asset))
    assert event is not None
    assert event.asset_materialization is not None
    folder = event.asset_materialization.metadata["folder"].value
    return read_manifest(Path(str(folder))).metrics


ASSETS = [benchmark_scores]
CHECKS = [consistent_with_the_paper, every_answer_is_graded]
