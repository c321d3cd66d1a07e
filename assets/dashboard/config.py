"""Every knob of the feature dashboard, and the stage that builds it."""

from pydantic import Field

from resources.section import Section
from resources.stage import Needs, Stage


class DashboardConfig(Section):
    """The `dashboard` section: what the site holds and how it is cut into files."""

    units_per_chunk: int = Field(default=16, ge=1, le=1024)
    """Units per data file: 240 kB at the paper's scale, read whole to show one unit."""
    rollouts_per_chunk: int = Field(default=8, ge=1, le=1024)
    """Rollouts per data file of the full-text view."""
    full_rollouts: int = Field(default=4, ge=0, le=1000)
    """Rollouts per latent whose every captured token carries its activation; others show the stored contexts only."""
    full_rollouts_adapter: int = Field(default=1, ge=0, le=1000)
    """The same for adapter directions, whose scalars are hardly ever 0 (each: 9 MB at the paper's scale)."""
    full_rollouts_neuron: int = Field(default=0, ge=0, le=1000)
    """The same for neurons; 0 leaves their shards (77 GB at the paper's scale) unread."""
    top_contexts: int = Field(default=64, ge=1, le=10_000)
    """Strongest contexts shown per direction and latent (paper: 64)."""
    other_contexts: int = Field(default=8, ge=0, le=10_000)
    """Contexts shown across the quantiles, and as many in which the unit is silent."""
    neuron_contexts: int = Field(default=4, ge=1, le=10_000)
    """Strongest contexts shown per baseline neuron (the paper: 7680), and half as many of each other sample."""
    logit_tokens: int = Field(default=10, ge=0, le=100)
    """Most promoted and most suppressed tokens shown per direction (B through the unembedding)."""


FEATURE_DASHBOARD = Stage(
    asset="feature_dashboard",
    room="dashboard",
    code_version=14,
    call="assets.dashboard.build:build",
    artifact="assets.dashboard.artifact:FeatureDashboard",
    sections=("model", "dashboard"),
    inputs=(
        "s1k_dataset",
        "lora_checkpoint",
        "activation_shards",
        "neuron_shards",
        "batchtopk_sae",
        "max_activating_contexts",
        "interpretations",
        "interpretation_scores",
        "feature_categories",
    ),
    needs=Needs(minutes=30),
)
