"""`benchmark_scores` in Dagster, with the paper's numbers as a check."""

from assets.benchmarks.config import BENCHMARK_SCORES
from dagster_project.materialize import experiment_asset

benchmark_scores = experiment_asset(
    BENCHMARK_SCORES,
    description="Base, LoRA, full finetune and ablated LoRA on the benchmarks, with intervals (paper: Tables 1 and 2)",
    kinds={"huggingface", "parquet"},
)

ASSETS = [benchmark_scores]
CHECKS = []
