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
    steps = min(knobs.greedy_steps, tried)
    parts += steps * tried - steps * (steps - 1) // 2  # each step leaves one less to try
    return _passes(on, parts, knobs.num_rollouts, knobs.max_tokens, FROM_THE_EDIT)


def latent_hours(on: Setting) -> WorkEstimate:
    """One pass for each latent."""
    rollouts, latents = on.knobs(AblationConfig), on.knobs(LatentAblationConfig).latents
    return _passes(on, latents, rollouts.num_rollouts, rollouts.max_tokens, FROM_THE_START)


def steering_hours(on: Setting) -> WorkEstimate:
    """A pass for each dose that changes something, then continuations under each, those that change nothing once."""
    knobs = on.knobs(SteeringConfig)
    units = len(set(knobs.units)) or knobs.strongest_components + knobs.chosen_latents
    # what is added has a random direction of the same length beside each unit's own; a neutral factor changes nothing
    directions, neutral = (2, 0.0) if knobs.mode == "add" else (1, 1.0)
    edits = directions * units * len({*knobs.factors} - {neutral})
    measured = _passes(on, edits, knobs.num_rollouts, knobs.max_tokens, FROM_THE_EDIT)
    length = ANSWER_SHARE * knobs.max_new_tokens
    tokens = (edits + (neutral in knobs.factors)) * knobs.num_problems * (1 + knobs.samples) * length
    return measured + generation(on.sizes, on.model.dtype, tokens, knobs.batch_rows, length, on.gpus)


def _passes(on: Setting, edits: int, rollouts: int, max_tokens: int, share: float) -> WorkEstimate:
    length = min(max_tokens, on.corpus.length)
    tokens = edits * rollouts * length
    flops = share * pass_flops(on.sizes, tokens, length) + head_flops(on.sizes, tokens)
    what = f"{edits} edits x {rollouts} rollouts x {length:.0f} tokens, {share:.0%} of a forward pass each"
    return dense(flops, on.gpus, what)
