"""`s1k_dataset` as a Dagster asset."""

from assets.dataset.config import S1K_DATASET
from dagster_project.materialize import experiment_asset

s1k_dataset = experiment_asset(
    S1K_DATASET,
    description="Reasoning rollouts of s1K-1.1 as the paper's training text, tokenised once with roles and spans.",
    kinds={"huggingface", "parquet"},
)

ASSETS = [s1k_dataset]
