"""The Dagster assets of this room."""

from assets.interpretations.config import INTERPRETATION_SCORES, INTERPRETATIONS
from dagster_project.materialize import experiment_asset

interpretations = experiment_asset(
    INTERPRETATIONS,
    description="What each direction, neuron and latent stands for: explanation, class 0/1/2, reasoning (paper B.1).",
    kinds={"openai", "parquet"},
)
interpretation_scores = experiment_asset(
    INTERPRETATION_SCORES,
    description="How well each explanation predicts its unit on rollouts that the explainer never saw.",
    kinds={"parquet"},
)

ASSETS = [interpretations, interpretation_scores]
