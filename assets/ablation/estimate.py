"""Hours of the ablation and of the steering: for `lorascope plan --explain`."""

from collections.abc import Mapping

from assets.ablation.config import AblationConfig, LatentAblationConfig, SteeringConfig
from resources.components import PROJECTIONS
from resources.compute import ComputeConfig
from resources.memory import Architecture, architecture
from resources.models import ModelConfig
from resources.section import Section
from resources.work import Corpus, WorkEstimate, dense, generation, head_flops, pass_flops

FROM_THE_EDIT = 0.5
"""Mean share of the layers that an edited pass computes: it begins at the edit's layer."""
ANSWER_SHARE = 0.5
"""Mean length of a continuation as a share of the longest (assumed)."""


def ablation_hours(
    sections: Mapping[str, Section],
    corpus: Corpus,
    _compute: ComputeConfig,
    gpus: int,
) -> WorkEstimate | None:
    """One pass for each part of the adapter, each from the layer of its edit; None: model not known here."""
    model, knobs = sections["model"], sections["ablation"]
    assert isinstance(model, ModelConfig)  # the experiment's own sections
    assert isinstance(knobs, AblationConfig)
    sizes = architecture(model)
    if sizes is None:
        return None
    layers = sizes.num_hidden_layers
    components = len(PROJECTIONS) * layers if knobs.components is None else len(knobs.components)
    groups = -(-layers // knobs.group_size)
    # attention, MLP and all of it are the last three
    parts = components + layers + len(PROJECTIONS) + groups + 3
    tried = layers if knobs.greedy_part == "layer" else len(PROJECTIONS) * layers
    parts += knobs.greedy_steps * tried
    return _passes(sizes, parts, knobs.num_rollouts, min(knobs.max_tokens, corpus.length), gpus)


def latent_hours(
    sections: Mapping[str, Section],
    corpus: Corpus,
    _compute: ComputeConfig,
    gpus: int,
) -> WorkEstimate | None:
    """One pass for each latent, which reaches into the first layer; None: model not known here."""
    model, rollouts, knobs = sections["model"], sections["ablation"], sections["latent_ablation"]
    assert isinstance(model, ModelConfig)  # the experiment's own sections
    assert isinstance(rollouts, AblationConfig)
    assert isinstance(knobs, LatentAblationConfig)
    sizes = architecture(model)
    if sizes is None:
        return None
    length = min(rollouts.max_tokens, corpus.length)
    tokens = knobs.latents * rollouts.num_rollouts * length
    what = f"{knobs.latents} latents x {rollouts.num_rollouts} rollouts x {length:.0f} tokens, a forward pass each"
    return dense(pass_flops(sizes, tokens, length) + head_flops(sizes, tokens), gpus, what)


def steering_hours(
    sections: Mapping[str, Section],
    corpus: Corpus,
    _compute: ComputeConfig,
    gpus: int,
) -> WorkEstimate | None:
    """A pass for each dose, then continuations under each; None: model not known here."""
    model, knobs = sections["model"], sections["steering"]
    assert isinstance(model, ModelConfig)  # the experiment's own sections
    assert isinstance(knobs, SteeringConfig)
    sizes = architecture(model)
    if sizes is None:
        return None
    units = len(knobs.units) or knobs.strongest_components + knobs.strongest_latents
    # each unit's own direction and a random one of the same length
    doses = 2 * units * len(knobs.factors)
    measured = _passes(sizes, doses, knobs.num_rollouts, min(knobs.max_tokens, corpus.length), gpus)
    length = ANSWER_SHARE * knobs.max_new_tokens
    tokens = doses * knobs.num_problems * (1 + knobs.samples) * length
    return measured + generation(sizes, model.dtype, tokens, knobs.batch_rows, length, gpus)


def _passes(sizes: Architecture, edits: int, rollouts: int, length: float, gpus: int) -> WorkEstimate:
    tokens = edits * rollouts * length
    flops = FROM_THE_EDIT * pass_flops(sizes, tokens, length) + head_flops(sizes, tokens)
    what = f"{edits} edits x {rollouts} rollouts x {length:.0f} tokens, {FROM_THE_EDIT:.0%} of a forward pass each"
    return dense(flops, gpus, what)
