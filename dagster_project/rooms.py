"""The rooms, left to right: every asset of the project, in the paper's order.

A stage's inputs stand above it. No Dagster here, so that plans and the experiment language load at once.
"""

from collections.abc import Mapping

from assets.ablation.config import ABLATION_KL, LATENT_KL, STEERING_EFFECTS
from assets.activations.config import ACTIVATION_SHARDS, NEURON_SHARDS
from assets.adapter.config import FULL_FINETUNE_CHECKPOINT, LORA_CHECKPOINT
from assets.benchmarks.config import BENCHMARK_SCORES
from assets.categories.config import CATEGORY_DENSITIES, FEATURE_CATEGORIES
from assets.contexts.config import MAX_ACTIVATING_CONTEXTS
from assets.dashboard.config import FEATURE_DASHBOARD
from assets.dataset.config import S1K_DATASET
from assets.interpretations.config import INTERPRETATION_SCORES, INTERPRETATIONS
from assets.paper.config import PAPER_REPORT
from assets.sae.config import BATCHTOPK_SAE
from resources.stage import Stage

ROOMS = (
    "dataset",
    "adapter",
    "activations",
    "sae",
    "contexts",
    "interpretations",
    "categories",
    "ablation",
    "benchmarks",
    "dashboard",
    "paper",
)
STAGES: tuple[Stage, ...] = (
    S1K_DATASET,
    LORA_CHECKPOINT,
    FULL_FINETUNE_CHECKPOINT,
    ACTIVATION_SHARDS,
    NEURON_SHARDS,
    BATCHTOPK_SAE,
    MAX_ACTIVATING_CONTEXTS,
    INTERPRETATIONS,
    INTERPRETATION_SCORES,
    FEATURE_CATEGORIES,
    CATEGORY_DENSITIES,
    ABLATION_KL,
    LATENT_KL,
    STEERING_EFFECTS,
    BENCHMARK_SCORES,
    FEATURE_DASHBOARD,
    PAPER_REPORT,
)
ASKING: Mapping[str, str] = {
    "interpretations": "interpretations",
    "interpretation_scores": "interpretations",
    "feature_categories": "categories",
    "benchmark_scores": "benchmarks",
}
"""Stages that ask models of vendors, and the sections that say whose."""


def stage(asset: str) -> Stage:
    """The stage of an asset.

    Raises:
        KeyError: when there is no such asset.
    """
    return {stage.asset: stage for stage in STAGES}[asset]
