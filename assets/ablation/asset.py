"""`ablation_kl`, `latent_kl` and `steering_effects` in Dagster."""

from assets.ablation.config import ABLATION_KL, LATENT_KL, STEERING_EFFECTS
from dagster_project.materialize import experiment_asset

ablation_kl = experiment_asset(
    ABLATION_KL,
    description="KL of every component, layer, projection and group, removed from the adapter (figure 3).",
    kinds={"pytorch", "parquet"},
)
latent_kl = experiment_asset(
    LATENT_KL,
    description="KL of single SAE latents, subtracted from the adapter's state.",
    kinds={"pytorch", "parquet"},
)
steering_effects = experiment_asset(
    STEERING_EFFECTS,
    description="Dose curves of steering one component or latent: KL, backtracking words, length, accuracy.",
    kinds={"pytorch", "parquet"},
)

ASSETS = [ablation_kl, latent_kl, steering_effects]
