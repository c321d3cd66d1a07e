"""The tables on disk and their schemas."""

import pyarrow as pa
import pyarrow.parquet as pq

from resources.artifact import Artifact
from resources.columns import described

ABLATION, INTERACTIONS, ROLLOUTS = "ablation.parquet", "interactions.parquet", "rollouts.parquet"
STEERING, CONTINUATIONS = "steering.parquet", "continuations.parquet"


_EFFECT = [
    described("kl_mean", pa.float64(), "KL(full adapter || edited), mean over scored tokens, nats"),
    described("kl_sem", pa.float64(), "its standard error over rollouts, as of a ratio of sums; null for one rollout"),
    described("ce_delta", pa.float64(), "rise of the cross-entropy of the next token, mean, nats"),
    described("n_tokens", pa.int64(), "scored tokens"),
    described("n_rollouts", pa.int32(), "rollouts with a scored token"),
]
_PART = [
    described("unit_kind", pa.string(), "component, layer, projection, attention, mlp, group, all, latent or greedy"),
    described(
        "unit",
        pa.string(),
        "L3.gate_proj, L3, gate_proj, attention, mlp, L0-L7, all, latent:448, or what a greedy step adds",
    ),
]
ABLATION_SCHEMA = pa.schema(
    [
        *_PART,
        described("layer", pa.int32(), "of a component or a layer, from 0; else null"),
        described("projection", pa.string(), "of a component or a projection; else null"),
        described("step", pa.int32(), "of the cumulative (greedy) order, from 1; else null"),
        described(
            "n_components", pa.int32(), "ablated components, those of earlier greedy steps among them; 0 for a latent"
        ),
        *_EFFECT,
    ]
)
INTERACTION_SCHEMA = pa.schema(
    [
        *_PART,
        described("kl_mean", pa.float64(), "KL with all components of the unit ablated at once, nats"),
        described("kl_sum_of_parts", pa.float64(), "sum of the KL of each of its components ablated alone, nats"),
        described(
            "interaction",
            pa.float64(),
            "the first minus the second: above 0 where parts push the same way or stand in for each other",
        ),
    ]
)
ROLLOUT_SCHEMA = pa.schema(
    [
        *_PART,
        described("rollout_id", pa.int32(), "row number in the source dataset"),
        described("kl_sum", pa.float64(), "sum over its scored tokens, nats"),
        described("ce_delta_sum", pa.float64(), "sum over its scored tokens with a next token, nats"),
        described("n_tokens", pa.int64(), "scored tokens"),
        described("n_targets", pa.int64(), "scored tokens with a next token"),
    ]
)
_OF_LOGARITHM = " (Student's, of its logarithm); null where problems do not differ"
_INTERVALS = [
    described(f"{name}{bound}", pa.float64(), f"{text}, 95 % interval{absent}" if bound else text)
    for name, text, absent in (
        ("backtracking", "backtracking words per 100 new tokens", _OF_LOGARITHM),
        ("length", "mean new tokens", _OF_LOGARITHM),
        ("accuracy", "share of problems solved", " (Wilson's, of as many answers as problems)"),
    )
    for bound in ("", "_low", "_high")
]
STEERING_SCHEMA = pa.schema(
    [
        described("unit", pa.string(), "adapter:L44.gate_proj:+ or latent:448"),
        described("direction", pa.string(), "unit, or random: the control of the same norm"),
        described("factor", pa.float64(), "dose"),
        described(
            "p99",
            pa.float64(),
            "what a factor of 1 adds with `mode: add`: 99th percentile of a component's magnitude over all tokens, or "
            "of a latent's activation where it fires on the drawn rollouts",
        ),
        *_EFFECT,
        described("decoding", pa.string(), "greedy or sampled; null where nothing was continued"),
        *_INTERVALS,
        described("n_continuations", pa.int32(), "continuations read"),
        described("truncated", pa.float64(), "share that ran into max_new_tokens"),
    ]
)
CONTINUATION_SCHEMA = pa.schema(
    [
        described("unit", pa.string(), "as in steering.parquet"),
        described("direction", pa.string(), "unit or random"),
        described("factor", pa.float64(), "dose"),
        described("decoding", pa.string(), "greedy or sampled"),
        described("rollout_id", pa.int32(), "whose question was continued"),
        described("sample", pa.int32(), "number of the sampled continuation; 0 for greedy"),
        described("text", pa.string(), "what the model said"),
        described("n_tokens", pa.int32(), "new tokens, the end token included"),
        described("n_backtracking", pa.int32(), "backtracking words"),
        described("correct", pa.bool_(), "its boxed answer is the solution's; null without a solution"),
        described("truncated", pa.bool_(), "ran into max_new_tokens"),
    ]
)
SCHEMAS = {
    "ablation_kl": {ABLATION: ABLATION_SCHEMA, INTERACTIONS: INTERACTION_SCHEMA, ROLLOUTS: ROLLOUT_SCHEMA},
    "latent_kl": {ABLATION: ABLATION_SCHEMA, ROLLOUTS: ROLLOUT_SCHEMA},
    "steering_effects": {STEERING: STEERING_SCHEMA, CONTINUATIONS: CONTINUATION_SCHEMA},
}
"""Asset -> file -> its columns."""


class LatentKl(Artifact):
    """A `latent_kl` folder."""

    def table(self) -> pa.Table:
        """One row per ablated part or latent, see `ABLATION_SCHEMA`."""
        return pq.read_table(self.path / ABLATION)

    def rollouts(self) -> pa.Table:
        """One row per ablated part or latent and rollout, see `ROLLOUT_SCHEMA`."""
        return pq.read_table(self.path / ROLLOUTS)


class AblationKl(LatentKl):
    """An `ablation_kl` folder."""

    def interactions(self) -> pa.Table:
        """Groups against the sum of their parts, see `INTERACTION_SCHEMA`."""
        return pq.read_table(self.path / INTERACTIONS)


class SteeringEffects(Artifact):
    """A `steering_effects` folder."""

    def table(self) -> pa.Table:
        """One row per unit, direction, factor and decoding, see `STEERING_SCHEMA`."""
        return pq.read_table(self.path / STEERING)

    def continuations(self) -> pa.Table:
        """One row per continuation, with what the model said, see `CONTINUATION_SCHEMA`."""
        return pq.read_table(self.path / CONTINUATIONS)
