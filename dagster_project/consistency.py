"""Knobs of different sections that cannot go together, told before anything starts; each of them alone is valid."""

from collections.abc import Collection, Sequence

from assets.ablation.config import AblationConfig, SteeringConfig
from assets.activations.config import NeuronsConfig
from assets.adapter.config import TRAIN, LoraConfig
from assets.benchmarks.config import BenchmarksConfig
from assets.categories.config import CategoriesConfig
from assets.contexts.config import ContextsConfig
from assets.dataset.config import DatasetConfig
from assets.dataset.estimate import expected
from assets.interpretations.config import InterpretationsConfig, ScoresConfig
from assets.sae.config import SaeConfig
from dagster_project.experiment import Experiment
from resources.adapters import read_settings
from resources.components import Component, components
from resources.errors import BadInput
from resources.memory import Architecture, architecture
from resources.models import ModelConfig
from resources.section import Sections, section_of
from resources.sources import local_folder
from resources.stage import Stage
from resources.units import parse_unit


def contradictions(experiment: Experiment, stages: Sequence[Stage]) -> list[str]:
    """One sentence for each, among what the stages read."""
    sections, assets = experiment.sections, {stage.asset for stage in stages}
    said = [
        _adapter(sections, assets),
        *_further_arms(sections, assets),
        _enough_contexts(sections, assets),
        _excerpts(sections, assets),
        _taxonomy(sections, assets),
        _enough_rollouts(sections, assets),
        *_of_the_model(sections, architecture(section_of(sections, ModelConfig)), assets),
    ]
    return [one for one in said if one]


def refuse(experiment: Experiment, missing: Sequence[str]) -> None:
    """Nothing, where nothing is missing.

    Raises:
        BadInput: naming each thing.
    """
    if missing:
        raise BadInput(f"{experiment.name} cannot be computed:\n" + "\n".join(f"- {one}" for one in missing))


def _adapter(sections: Sections, assets: Collection[str]) -> str:
    """Capture would say so too, but only after the trainings; of an adapter at the hub nothing is known here."""
    lora = section_of(sections, LoraConfig)
    if lora.source == TRAIN:
        rank, found = lora.rank, f"lora.rank is {lora.rank}: set it to 1"
    elif folder := local_folder(lora.source):
        try:
            rank = read_settings(folder).r
        except BadInput as error:
            return str(error) if "lora_checkpoint" in assets else ""
        found = f"the adapter in {folder} has rank {rank}: take one of rank 1"
    else:
        return ""
    if rank == 1 or "activation_shards" not in assets:
        return ""
    return (
        f"activation_shards reads one scalar per component, and {found}, or materialise lora_checkpoint and "
        "benchmark_scores alone"
    )


def _further_arms(sections: Sections, assets: Collection[str]) -> list[str]:
    """Scoring would say so too, but only after the trainings."""
    arms = section_of(sections, BenchmarksConfig).extra_adapters if "benchmark_scores" in assets else {}
    said: list[str] = []
    for name, source in arms.items():
        folder = local_folder(source)
        if folder is None:
            said.append(f"benchmarks.adapters: {name} names {source}, which is no folder; name one with a PEFT adapter")
            continue
        try:
            read_settings(folder)
        except BadInput as error:
            said.append(f"benchmarks.adapters: {name}: {error}")
    return said


def _enough_contexts(sections: Sections, assets: Collection[str]) -> str:
    """Every unit would be called insufficient, and the categories say so."""
    kept, explained = section_of(sections, ContextsConfig).k, section_of(sections, InterpretationsConfig)
    if explained.vendors() or kept >= explained.min_contexts or "interpretations" not in assets:
        return ""
    return (
        f"contexts.k keeps {kept} contexts of a unit, and the statistical explainer wants {explained.min_contexts}: "
        "raise contexts.k, or lower interpretations.min_contexts"
    )


def _excerpts(sections: Sections, assets: Collection[str]) -> str:
    """Beyond a context's window nothing says where a unit fires: an excerpt called quiet could hold a firing token."""
    window, shown = section_of(sections, ContextsConfig).window, section_of(sections, ScoresConfig).tokens_around
    judged = section_of(sections, InterpretationsConfig).vendors() and "interpretation_scores" in assets
    if not judged or shown <= window:
        return ""
    return (
        f"interpretation_scores shows a judge {shown} tokens on either side, and contexts.window keeps activations of "
        f"{window}: lower scores.tokens_around, or raise contexts.window"
    )


def _taxonomy(sections: Sections, assets: Collection[str]) -> str:
    """An LLM makes the taxonomy from as many directions as neurons, when their explanations have been paid for."""
    missing = {"adapter", "neuron"} - set(section_of(sections, InterpretationsConfig).kinds)
    if not missing or "feature_categories" not in assets or not section_of(sections, CategoriesConfig).vendors():
        return ""
    return (
        f"feature_categories needs explanations of adapter directions and of neurons, and interpretations.kinds leaves "
        f"out {' and '.join(sorted(missing))}: add it, or set categories.provider to statistical"
    )


def _enough_rollouts(sections: Sections, assets: Collection[str]) -> str:
    """Summing would say so too, but only after the explanations; of other data the number is not known here."""
    wanted, dataset = section_of(sections, CategoriesConfig).rollouts, section_of(sections, DatasetConfig)
    known = expected(dataset)
    most = known.rollouts if known else dataset.max_rollouts
    if wanted is None or most is None or wanted <= most or "category_densities" not in assets:
        return ""
    return f"categories.rollouts is {wanted}, but there are {most} rollouts at most: lower it, or leave it out for all"


def _of_the_model(sections: Sections, sizes: Architecture | None, assets: Collection[str]) -> list[str]:
    """What only the model's sizes tell; nothing where they are not known here."""
    if sizes is None:
        return []
    try:
        adapter = adapted(section_of(sections, LoraConfig), sizes)
    except BadInput as error:
        return [str(error)]
    return [
        *_dictionary(section_of(sections, SaeConfig), section_of(sections, SteeringConfig), adapter, assets),
        _neurons(section_of(sections, NeuronsConfig), sizes, assets),
        _context(section_of(sections, BenchmarksConfig), sizes, assets),
        _split(section_of(sections, BenchmarksConfig), sizes, assets),
        *_unknown(sections, {component.id for component in adapter}, assets),
    ]


def adapted(lora: LoraConfig, sizes: Architecture) -> Sequence[Component]:
    """What the adapter has; of a published one, all that it can have.

    Raises:
        BadInput: for a layer that the model does not have.
    """
    if lora.source == TRAIN:
        return lora.components(sizes.num_hidden_layers)
    return components(sizes.num_hidden_layers)


def _dictionary(
    sae: SaeConfig, steering: SteeringConfig, adapter: Sequence[Component], assets: Collection[str]
) -> list[str]:
    """A k that the SAE cannot keep, and latents that the steering names and the SAE has not."""
    if not {"batchtopk_sae", "steering_effects"} & set(assets):
        return []
    try:
        latents = sae.expansion * len(sae.entering(adapter))
    except BadInput as error:
        return [str(error)] if "batchtopk_sae" in assets else []
    said = []
    if sae.k >= latents and "batchtopk_sae" in assets:
        said.append(f"sae.k is {sae.k} but the dictionary has {latents} latents: lower k or raise expansion")
    if "steering_effects" in assets:
        beyond = [unit for unit in steering.units if parse_unit(unit).index >= latents]
        said += [f"steering.units names {unit}, but the dictionary has {latents} latents" for unit in beyond]
    return said


def _neurons(neurons: NeuronsConfig, sizes: Architecture, assets: Collection[str]) -> str:
    """Capture would say so too, but only after the trainings."""
    if neurons.per_layer <= sizes.intermediate_size or "neuron_shards" not in assets:
        return ""
    return f"neurons.per_layer is {neurons.per_layer}, but an MLP has {sizes.intermediate_size}: lower it"


def _context(benchmarks: BenchmarksConfig, sizes: Architecture, assets: Collection[str]) -> str:
    longest = sizes.max_position_embeddings
    if benchmarks.context <= longest or "benchmark_scores" not in assets:
        return ""
    return f"benchmarks.context is {benchmarks.context} tokens, but the model takes {longest}: lower it"


def _split(benchmarks: BenchmarksConfig, sizes: Architecture, assets: Collection[str]) -> str:
    """vLLM says so too, but only after the trainings."""
    wanted = benchmarks.tensor_parallel_size
    if benchmarks.backend != "vllm" or "benchmark_scores" not in assets or sizes.divides_among(wanted):
        return ""
    most = next(gpus for gpus in range(wanted - 1, 0, -1) if sizes.divides_among(gpus))
    return (
        f"benchmarks.tensor_parallel_size is {wanted}, and vLLM cannot divide {sizes.num_attention_heads} attention "
        f"heads and an MLP of {sizes.intermediate_size} among so many GPUs: set it to {most}"
    )


def _unknown(sections: Sections, known: Collection[str], assets: Collection[str]) -> list[str]:
    """Components that the ablation or the steering names and the adapter has not."""
    ablated = (section_of(sections, AblationConfig).components or ()) if "ablation_kl" in assets else ()
    steered = [unit for unit in section_of(sections, SteeringConfig).units if unit.startswith("adapter:")]
    named = {name: "ablation.components" for name in ablated}
    if "steering_effects" in assets:
        named |= {unit.split(":")[1]: "steering.units" for unit in steered}
    return [
        f"{knob} names {name}, which the adapter does not have" for name, knob in named.items() if name not in known
    ]
