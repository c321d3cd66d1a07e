"""Hours of the ablations and of the steering: for `lorascope plan --explain`."""

from assets.ablation.config import AblationConfig, LatentAblationConfig, SteeringConfig
from resources.components import PROJECTIONS
from resources.work import Setting, WorkEstimate, dense, generation, head_flops, pass_flops

FROM_THE_EDIT = 0.5
"""Mean share of the layers that an edited pass computes: it begins at the edit's layer."""
FROM_THE_START = 1.0
"""A latent writes into the first layer too."""
ANSWER_SHARE = 0.5
"""Mean length of a continuation as a share of the longest (assumed)."""


def ablation_hours(on: Setting) -> WorkEstimate:
    """One pass for each part of the adapter, each from the layer of its edit."""
    knobs, layers = on.knobs(AblationConfig), on.sizes.num_hidden_layers
    components = len(PROJECTIONS) * layers if knobs.components is None else len(knobs.components)
    groups = -(-layers // knobs.group_size)
    # attention, MLP and all of it are the last three
    parts = components + layers + len(PROJECTIONS) + groups + 3
    tried = layers if knobs.greedy_part == "layer" else len(PROJECTIONS) * layers
    parts += knobs.greedy_steps * tried
    return _passes(on, parts, knobs.num_rollouts, knobs.max_tokens, FROM_THE_EDIT)


def latent_hours(on: Setting) -> WorkEstimate:
    """One pass for each latent."""
    rollouts, latents = on.knobs(AblationConfig), on.knobs(LatentAblationConfig).latents
    return _passes(on, latents, rollouts.num_rollouts, rollouts.max_tokens, FROM_THE_START)


def steering_hours(on: Setting) -> WorkEstimate:
    """A pass for each dose, then continuations under each."""
    knobs = on.knobs(SteeringConfig)
    units = len(knobs.units) or knobs.strongest_components + knobs.strongest_latents
    # each unit's own direction and a random one of the same length
    doses = 2 * units * len(knobs.factors)
    measured = _passes(on, doses, knobs.num_rollouts, knobs.max_tokens, FROM_THE_EDIT)
    length = ANSWER_SHARE * knobs.max_new_tokens
    tokens = doses * knobs.num_problems * (1 + knobs.samples) * length
    return measured + generation(on.sizes, on.model.dtype, tokens, knobs.batch_rows, length, on.gpus)


def _passes(on: Setting, edits: int, rollouts: int, max_tokens: int, share: float) -> WorkEstimate:
    length = min(max_tokens, on.corpus.length)
    tokens = edits * rollouts * length
    flops = share * pass_flops(on.sizes, tokens, length) + head_flops(on.sizes, tokens)
    what = f"{edits} edits x {rollouts} rollouts x {length:.0f} tokens, {share:.0%} of a forward pass each"
    return dense(flops, on.gpus, what)
