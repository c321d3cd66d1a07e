"""`batchtopk_sae` in Dagster."""

from assets.sae.config import BATCHTOPK_SAE
from dagster_project.materialize import experiment_asset

batchtopk_sae = experiment_asset(
    BATCHTOPK_SAE,
    description="BatchTopK SAE over the adapter state, its fixed threshold, and its effect on the model.",
    kinds={"pytorch", "safetensors"},
)

ASSETS = [batchtopk_sae]
