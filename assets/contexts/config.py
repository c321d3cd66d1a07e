"""Every knob of the contexts, and the stage that collects them."""

from pydantic import Field

from resources.section import Section
from resources.stage import Needs, Stage


class ContextsConfig(Section):
    """The `contexts` section."""

    k: int = Field(default=64, ge=1, le=10_000)
    """Strongest contexts per unit (paper: 64). An explainer is shown only those outside the held-out rollouts: where a
    quarter is held out, 48 of 64, or 72 of 96, so that 97 % of units have the paper's 64 to show (`paper.yaml`)."""
    window: int = Field(default=48, ge=0, le=4096)
    """Tokens kept on either side (authors' code: 48 for latents, 30 for directions, 20 for neurons)."""
    cap_per_rollout: int = Field(default=0, ge=0, le=10_000)
    """Most of a unit's strongest contexts from one rollout; 0: no cap (paper: silent)."""
    firing_fraction: float = Field(default=0.5, ge=0, le=100)
    """An adapter direction or neuron fires where its activation exceeds this share of the 99th percentile of the
    column's magnitude (rounded to float16). Its scalars are hardly ever 0, so without a threshold every density would
    be about a half; at 0.5 a normally distributed column fires on 10 % of tokens in each polarity. Latents fire above
    the SAE's own threshold."""
    quantile_samples: int = Field(default=32, ge=0, le=10_000)
    """Contexts spread evenly over the quantiles of a unit's firing tokens, from a random sample of them."""
    silent_samples: int = Field(default=32, ge=0, le=10_000)
    """Random contexts in which a unit does not fire."""
    silent_radius: int = Field(default=8, ge=0, le=4096)
    """Tokens either side of a silent sample in which the unit should not fire either; where a unit leaves too few such
    places, those with the fewest firing tokens around are taken."""
    silent_pool: int = Field(default=2048, ge=1, le=1_000_000)
    """Random tokens from which all units draw their silent samples: bounds memory (2 bytes x pool x units)."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of both random samples (paper: 42)."""


ENCODED_ROWS = 2048
"""Tokens encoded, and then tallied, together."""

MAX_ACTIVATING_CONTEXTS = Stage(
    asset="max_activating_contexts",
    room="contexts",
    code_version=1,
    call="assets.contexts.collect:collect",
    artifact="assets.contexts.artifact:Contexts",
    sections=("contexts",),
    inputs=("s1k_dataset", "activation_shards", "neuron_shards", "batchtopk_sae"),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=60,
        memory_model="assets.contexts.estimate:held",
        time_model="assets.contexts.estimate:collect_hours",
    ),
)
