"""`max_activating_contexts` in Dagster."""

from assets.contexts.config import MAX_ACTIVATING_CONTEXTS
from dagster_project.materialize import experiment_asset

max_activating_contexts = experiment_asset(
    MAX_ACTIVATING_CONTEXTS,
    description="The exact strongest contexts of every direction, neuron and latent, with firing and silent samples.",
    kinds={"numpy", "parquet"},
)

ASSETS = [max_activating_contexts]
