"""Knobs that cannot go together are told before anything starts, each in a sentence, and only where they are read."""

import json
import re
import shutil
from pathlib import Path

import pytest

from dagster_project.consistency import contradictions
from dagster_project.experiment import Experiment, Experiments
from dagster_project.rooms import STAGES, stage
from resources.errors import BadInput
from resources.sources import PROJECT

JUDGED = "interpretations: {provider: openai-compatible, base_url: 'http://127.0.0.1:9/v1', model: m}\n"
PAID = "categories: {provider: openai}\ninterpretations: {kinds: [latent, adapter]}\n"


def load(folder: Path, text: str) -> Experiment:
    (folder / "mini.yaml").write_text((PROJECT / "experiments" / "mini.yaml").read_text())
    (folder / "e.yaml").write_text(f"extends: mini\n{text}")
    return Experiments(folder).load("e")


@pytest.mark.parametrize(
    ("text", "asset", "sentence"),
    [
        (
            "lora: {rank: 2}",
            "activation_shards",
            "activation_shards reads one scalar per component, and lora.rank is 2: set it to 1, or materialise "
            "lora_checkpoint and benchmark_scores alone",
        ),
        (
            "contexts: {k: 11}",
            "interpretations",
            "contexts.k keeps 11 contexts of a unit, and the statistical explainer wants 12: raise contexts.k, or "
            "lower interpretations.min_contexts",
        ),
        (
            JUDGED + "contexts: {window: 8}\nscores: {tokens_around: 9}",
            "interpretation_scores",
            "interpretation_scores shows a judge 9 tokens on either side, and contexts.window keeps activations of 8: "
            "lower scores.tokens_around, or raise contexts.window",
        ),
        (
            PAID,
            "feature_categories",
            "feature_categories needs explanations of adapter directions and of neurons, and interpretations.kinds "
            "leaves out neuron: add it, or set categories.provider to statistical",
        ),
        (
            "dataset: {max_rollouts: 40}\ncategories: {rollouts: 41}",
            "category_densities",
            "categories.rollouts is 41, but there are 40 rollouts at most: lower it, or leave it out for all",
        ),
        # The mini world has 4 layers of 7 components, with 8 latents each.
        (
            "sae: {k: 224}",
            "batchtopk_sae",
            "sae.k is 224 but the dictionary has 224 latents: lower k or raise expansion",
        ),
        # An MLP of it has 384 neurons.
        (
            "neurons: {per_layer: 385}",
            "neuron_shards",
            "neurons.per_layer is 385, but an MLP has 384: lower it",
        ),
        (
            "sae: {k: 16}\nlora: {layers: [1], projections: [q_proj, o_proj]}",
            "batchtopk_sae",
            "sae.k is 16 but the dictionary has 16 latents: lower k or raise expansion",
        ),
        (
            "sae: {k: 56, projections: [gate_proj], layers: [1, 2]}",
            "batchtopk_sae",
            "sae.k is 56 but the dictionary has 16 latents: lower k or raise expansion",
        ),
        (
            "sae: {layers: [0, 9]}",
            "batchtopk_sae",
            "sae.layers names layer 9, of which the adapter has no component",
        ),
        (
            "sae: {projections: [up_proj]}\nlora: {layers: [1], projections: [q_proj, o_proj]}",
            "batchtopk_sae",
            "sae.layers and sae.projections leave none of the adapter's 2 components",
        ),
        ("lora: {layers: [4]}", "lora_checkpoint", "lora names layer 4, but the model has layers 0 to 3"),
        (
            "benchmarks: {context: 1025}",
            "benchmark_scores",
            "benchmarks.context is 1025 tokens, but the model takes 1024: lower it",
        ),
        (
            "benchmarks: {backend: vllm, tensor_parallel_size: 8}",
            "benchmark_scores",
            "benchmarks.tensor_parallel_size is 8, and vLLM cannot divide 4 attention heads and an MLP of 384 among "
            "so many GPUs: set it to 4",
        ),
        (
            "ablation: {components: [L0.q_proj, L3.gate_proj]}\nlora: {layers: [3]}",
            "ablation_kl",
            "ablation.components names L0.q_proj, which the adapter does not have",
        ),
        (
            "steering: {units: ['latent:3', 'adapter:L9.q_proj:+']}",
            "steering_effects",
            "steering.units names L9.q_proj, which the adapter does not have",
        ),
        (
            "steering: {units: ['latent:223', 'latent:224']}",
            "steering_effects",
            "steering.units names latent:224, but the dictionary has 224 latents",
        ),
    ],
)
def test_knobs_that_cannot_go_together_are_one_sentence(tmp_path: Path, text: str, asset: str, sentence: str) -> None:
    assert contradictions(load(tmp_path, text), STAGES) == [sentence]
    assert contradictions(load(tmp_path, text), [stage(asset)]) == [sentence]
    # A layer that is not there is every stage's matter; the others may go on.
    without = [one for one in STAGES if one.asset != asset]
    assert contradictions(load(tmp_path, text), without) == [sentence] * (asset == "lora_checkpoint")


@pytest.mark.parametrize(
    "text",
    [
        "sae: {k: 223}",
        "contexts: {k: 12}",
        JUDGED + "contexts: {k: 11}",
        "neurons: {per_layer: 384}",
        "sae: {k: 15, projections: [gate_proj], layers: [1, 2]}",
        "benchmarks: {context: 1024}",
        JUDGED + "contexts: {window: 9}\nscores: {tokens_around: 9}",
        "contexts: {window: 8}\nscores: {tokens_around: 9}",
        "ablation: {components: [L3.gate_proj]}\nlora: {layers: [3]}",
        "benchmarks: {backend: vllm, tensor_parallel_size: 4}",
        "benchmarks: {backend: hf, tensor_parallel_size: 8}",
        "categories: {provider: openai}",
        "dataset: {max_rollouts: 40}\ncategories: {rollouts: 40}",
        "categories: {rollouts: 1000000}",  # of a folder nobody has counted
        "interpretations: {kinds: [latent, adapter]}",
        "activations: {positions: assistant}",
    ],
)
def test_knobs_at_the_bound_go_together(tmp_path: Path, text: str) -> None:
    assert contradictions(load(tmp_path, text), STAGES) == []


def test_what_nothing_wanted_reads_contradicts_nothing(tmp_path: Path) -> None:
    wide = load(tmp_path, "lora: {rank: 2}\nsae: {k: 224}\n" + PAID)
    assert contradictions(wide, [stage("lora_checkpoint"), stage("neuron_shards")]) == []


def test_a_published_adapters_rank_and_components_are_not_the_configs(tmp_path: Path, tiny_adapter: Path) -> None:
    lora = f"lora: {{rank: 2, layers: [0], source: {tiny_adapter}}}\n"
    taken = load(tmp_path, lora + "ablation: {components: [L1.q_proj]}\nsae: {k: 99}\n")
    assert contradictions(taken, STAGES) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"r": 4},
            "activation_shards reads one scalar per component, and the adapter in {folder} has rank 4: take one of "
            "rank 1, or materialise lora_checkpoint and benchmark_scores alone",
        ),
        (
            {"use_dora": True},
            "{folder}/adapter_config.json sets use_dora: only a LoRA with one rank and one alpha for all components, "
            "and nothing beside it, is supported",
        ),
    ],
)
def test_an_adapter_of_this_machine_that_cannot_be_read_is_told_before_the_full_finetune(
    tmp_path: Path, tiny_adapter: Path, changes: dict[str, object], sentence: str
) -> None:
    folder = tmp_path / "taken"
    shutil.copytree(tiny_adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    experiment = load(tmp_path, f"lora: {{source: {folder}}}\nsteering: {{strongest_latents: 0}}")
    wanted = [stage("lora_checkpoint"), stage("activation_shards")]
    assert contradictions(experiment, wanted) == [sentence.format(folder=folder)]


def test_further_arms_that_are_no_adapters_are_told_before_the_trainings(tmp_path: Path, tiny_adapter: Path) -> None:
    arms = f"[fits={tiny_adapter}, hub=someone/adapter, other={tmp_path}]"
    experiment = load(tmp_path, f"benchmarks: {{adapters: {arms}}}")
    assert contradictions(experiment, [stage("benchmark_scores")]) == [
        "benchmarks.adapters: hub names someone/adapter, which is no folder; name one with a PEFT adapter",
        f"benchmarks.adapters: other: {tmp_path} has no adapter_config.json: name the folder of a PEFT adapter",
    ]
    assert contradictions(experiment, [stage("lora_checkpoint")]) == []


def test_more_rollouts_than_the_published_dataset_has_are_told(tmp_path: Path) -> None:
    published = "dataset: {source: simplescaling/s1K-1.1, revision: 96c411f1fe4c49d20f0e2a1565f61e1a28b0b84d}\n"
    assert contradictions(load(tmp_path, published + "categories: {rollouts: 1000}"), STAGES) == []
    [said] = contradictions(load(tmp_path, published + "categories: {rollouts: 1001}"), STAGES)
    assert said.startswith("categories.rollouts is 1001, but there are 1000 rollouts at most")


def test_a_model_whose_sizes_are_not_known_here_contradicts_nothing(tmp_path: Path) -> None:
    away = load(tmp_path, f"model: {{name: someone/qwen, revision: {'a' * 40}}}\nsae: {{k: 4096}}\n")
    assert contradictions(away, STAGES) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ablation: {components: [L0.gate]}", "'L0.gate' is no component: write L<layer>.<projection> with one of"),
        ("steering: {units: [L0.q_proj]}", "'L0.q_proj' is no unit: write adapter:L3.gate_proj:+, neuron:L2.17:- or"),
    ],
)
def test_what_is_no_name_is_refused_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=r"e\.yaml:2: (ablation\.components|steering\.units): " + re.escape(message)):
        load(tmp_path, text)
