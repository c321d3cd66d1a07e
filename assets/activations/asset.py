"""`activation_shards` and `neuron_shards` in Dagster."""

from assets.activations.config import ACTIVATION_SHARDS, NEURON_SHARDS
from dagster_project.materialize import experiment_asset

activation_shards = experiment_asset(
    ACTIVATION_SHARDS,
    description="The scalar of every adapter component at every token, from the adapted model's own forward pass.",
    kinds={"pytorch", "parquet"},
)

neuron_shards = experiment_asset(
    NEURON_SHARDS,
    description="The first neurons of each MLP of the unadapted base model at every token: the paper's baseline.",
    kinds={"pytorch", "parquet"},
)

ASSETS = [activation_shards, neuron_shards]
