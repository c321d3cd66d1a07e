"""Hours of the two trainings: for `lorascope plan --explain`."""

from assets.adapter.config import TRAIN, FullFinetuneConfig, LoraConfig, TrainingConfig
from resources.work import Setting, WorkEstimate, dense, head_flops, pass_flops


def lora_hours(on: Setting) -> WorkEstimate:
    """Forward, and backward for the inputs alone: the base weights have no gradient."""
    return _hours(on, on.knobs(LoraConfig), backward=1)


def full_hours(on: Setting) -> WorkEstimate:
    """Forward, and backward for inputs and weights."""
    return _hours(on, on.knobs(FullFinetuneConfig), backward=2)


def _hours(on: Setting, training: TrainingConfig, backward: int) -> WorkEstimate:
    if training.source != TRAIN:
        return WorkEstimate(0.0, f"taken from {training.source}, nothing is trained")
    length = min(on.corpus.length, training.block_size or on.corpus.length)
    tokens = training.epochs * on.corpus.rollouts * length
    recomputed = on.compute.recomputed_layers
    again = 1.0 if recomputed is None else recomputed / on.sizes.num_hidden_layers
    times = 1 + min(1.0, again) + backward
    flops = times * pass_flops(on.sizes, tokens, length) + (1 + backward) * head_flops(on.sizes, tokens)
    what = f"{training.epochs} epochs x {on.corpus.rollouts} rollouts x {length:.0f} tokens"
    return dense(flops, on.gpus, f"{what}, each {times:g} forward passes")
