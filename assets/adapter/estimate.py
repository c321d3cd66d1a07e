"""Hours of the two trainings: for `lorascope plan --explain`."""

from collections.abc import Mapping

from assets.adapter.config import TRAIN, FullFinetuneConfig, LoraConfig, TrainingConfig
from resources.compute import ComputeConfig
from resources.memory import architecture
from resources.models import ModelConfig
from resources.section import Section
from resources.work import Corpus, WorkEstimate, dense, head_flops, pass_flops


def lora_hours(
    sections: Mapping[str, Section], corpus: Corpus, compute: ComputeConfig, gpus: int
) -> WorkEstimate | None:
    """Forward, and backward for the inputs alone: the base weights have no gradient. None: model not known here."""
    knobs = sections["lora"]
    assert isinstance(knobs, LoraConfig)  # the experiment's own section
    return _hours(sections["model"], knobs, corpus, compute, gpus, backward=1)


def full_hours(
    sections: Mapping[str, Section], corpus: Corpus, compute: ComputeConfig, gpus: int
) -> WorkEstimate | None:
    """Forward, and backward for inputs and weights. None: model not known here."""
    knobs = sections["full_finetune"]
    assert isinstance(knobs, FullFinetuneConfig)  # the experiment's own section
    return _hours(sections["model"], knobs, corpus, compute, gpus, backward=2)


def _hours(
    model: Section, training: TrainingConfig, corpus: Corpus, compute: ComputeConfig, gpus: int, backward: int
) -> WorkEstimate | None:
    assert isinstance(model, ModelConfig)
    sizes = architecture(model)
    if sizes is None:
        return None
    if training.source != TRAIN:
        return WorkEstimate(0.0, f"taken from {training.source}, nothing is trained")
    length = min(corpus.length, training.block_size or corpus.length)
    tokens = training.epochs * corpus.rollouts * length
    again = 1.0 if compute.recomputed_layers is None else compute.recomputed_layers / sizes.num_hidden_layers
    times = 1 + min(1.0, again) + backward
    flops = times * pass_flops(sizes, tokens, length) + (1 + backward) * head_flops(sizes, tokens)
    what = f"{training.epochs} epochs x {corpus.rollouts} rollouts x {length:.0f} tokens, each {times:g} forward passes"
    return dense(flops, gpus, what)
