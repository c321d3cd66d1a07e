"""`ablation_kl` and `steering_effects` in Dagster."""

from assets.ablation.config import ABLATION_KL, STEERING_EFFECTS
from dagster_project.materialize import experiment_asset

ablation_kl = experiment_asset(
    ABLATION_KL,
    description="KL of every component, layer, projection and group, removed from the adapter (figure 3)",
    kinds={"pytorch", "parquet"},
)
steering_effects = experiment_asset(
    STEERING_EFFECTS,
    description="Dose curves of steering one component or latent: KL, backtracking words, length, accuracy",
    kinds={"pytorch", "parquet"},
)

ASSETS = [ablation_kl, steering_effects]
CHECKS = []
