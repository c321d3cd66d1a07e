"""`lorascope plan --explain`: hours and memory come from each room's account, worked out here by hand."""

from pathlib import Path

import pytest

from assets.adapter.estimate import full_hours, lora_hours
from assets.contexts.estimate import held as contexts_held
from assets.sae.estimate import held as sae_held
from dagster_project.compute_asset import job_of
from dagster_project.experiment import Experiment, Experiments
from dagster_project.explain import explain_stages, hours_of
from dagster_project.plan import keys
from dagster_project.rooms import STAGES, stage
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.launcher.deployment import Deployment
from resources.launcher.fit import check_fits
from resources.memory import KNOWN, Setup, architecture
from resources.models import PUBLISHED, ModelConfig
from resources.store import Store
from resources.work import (
    ANSWER_TOKENS_PER_SECOND,
    BANDWIDTH,
    BANDWIDTH_SHARE,
    DENSE_SHARE,
    PEAK_FLOPS,
    Corpus,
    Setting,
    asking,
)

PAPER = Corpus(1000, 10_000_000, "by hand")
BLOCK = 2 * 5120**2 + 2 * 5120 * 1024 + 5120 + 2 * 1024 + 3 * 5120 * 27648 + 2 * 5120
"""Parameters of one of Qwen2.5-32B's 64 blocks."""
FORWARD = 64 * (2 * BLOCK + 2 * 10_000 * 5120)
"""FLOP of one token's forward pass in rollouts of 10,000 tokens, attention included, head not."""
HEAD = 2 * 5120 * 152_064
SPEED = 8 * PEAK_FLOPS * DENSE_SHARE * 3600
"""FLOP of the node in an hour."""


@pytest.fixture
def paper(tmp_path: Path) -> Experiment:
    (tmp_path / "paper.yaml").write_text("description: every default is the paper's\n")
    return Experiments(tmp_path).load("paper")


def hours(experiment: Experiment, asset: str) -> float:
    found = hours_of(stage(asset), experiment, PAPER, 8)
    assert found is not None
    return found.hours


def test_a_frozen_base_costs_three_passes_with_recomputation_and_a_trained_one_four(paper: Experiment) -> None:
    tokens = 5 * 10_000_000
    assert hours(paper, "lora_checkpoint") == pytest.approx(tokens * (3 * FORWARD + 2 * HEAD) / SPEED, rel=1e-6)
    assert hours(paper, "full_finetune_checkpoint") == pytest.approx(tokens * (4 * FORWARD + 3 * HEAD) / SPEED)
    kept = ComputeConfig(recomputed_layers=0)
    model = paper.sections["model"]
    assert isinstance(model, ModelConfig)
    sizes = architecture(model)
    assert sizes is not None
    lora, full = (of(Setting(paper.sections, sizes, kept, 8, PAPER)) for of in (lora_hours, full_hours))
    assert lora.hours == pytest.approx(tokens * 2 * (FORWARD + HEAD) / SPEED)
    assert full.hours == pytest.approx(tokens * 3 * (FORWARD + HEAD) / SPEED)


def test_captures_are_one_pass_and_the_ablation_half_a_pass_for_each_of_530_edits(paper: Experiment) -> None:
    assert hours(paper, "activation_shards") == pytest.approx(10_000_000 * FORWARD / SPEED)
    # 448 components, 64 layers, 7 projections, 8 groups of layers, attention, MLP, all; attention over 2048 tokens.
    short = 64 * (2 * BLOCK + 2 * 2048 * 5120)
    assert hours(paper, "ablation_kl") == pytest.approx(530 * 16 * 2048 * (short / 2 + HEAD) / SPEED)


@pytest.mark.parametrize(
    ("asset", "yaml", "edits"),
    [
        # 2 units x 2 directions x 7 factors: a factor of 0 changes nothing
        ("steering_effects", "{}", 28),
        ("steering_effects", "{steering: {units: ['latent:3', 'latent:3'], factors: [0, 1, 1]}}", 2),
        # one component, no latent and no random direction; a factor of 1 changes nothing
        ("steering_effects", "{steering: {mode: scale, factors: [0, 1, 2]}}", 2),
        # of 64 layers each step leaves one less to try
        ("ablation_kl", "{ablation: {greedy_steps: 3}}", 530 + 64 + 63 + 62),
        ("ablation_kl", "{ablation: {greedy_steps: 1000}}", 530 + 64 * 65 // 2),
    ],
)
def test_hours_count_the_edits_that_will_be_measured(tmp_path: Path, asset: str, yaml: str, edits: int) -> None:
    (tmp_path / "one.yaml").write_text(f"{yaml}\n" if yaml != "{}" else "description: every default\n")
    found = hours_of(stage(asset), Experiments(tmp_path).load("one"), PAPER, 8)
    assert found is not None
    assert found.how.startswith(f"{edits} edits x 16 rollouts")


def test_answers_are_as_fast_as_weights_and_cache_can_be_read(paper: Experiment) -> None:
    # 5 arms x (30 + 500 + 198) questions x 8000 tokens; 256 share one reading of 65.5 GB, each reads 4000 x 256 KiB.
    moved = 32_763_876_352 * 2 / 256 + 4000 * 256 * 1024
    seconds = 5 * 728 * 8000 * moved / (8 * BANDWIDTH * BANDWIDTH_SHARE)
    assert hours(paper, "benchmark_scores") == pytest.approx(seconds / 3600)


def test_paid_stages_take_requests_over_how_many_are_under_way(paper: Experiment) -> None:
    wanted = 12_160 * 800 / ANSWER_TOKENS_PER_SECOND / 20 / 3600
    assert hours(paper, "interpretations") == pytest.approx(wanted)


def test_a_day_is_reckoned_for_each_batch_since_they_go_one_behind_the_other() -> None:
    batch = ComputeConfig(llm_mode="batch")
    assert (asking(9_000, 800, batch).hours, asking(194_560, 150, batch).hours) == (24, 20 * 24)


def test_every_stage_of_the_paper_that_needs_a_gpu_or_is_paid_has_hours_and_memory(
    paper: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    text = explain_stages(paper)
    paragraphs = dict(zip([s.asset for s in STAGES], text.split("\n\n")[1:-1], strict=True))
    for each in STAGES:
        shown = paragraphs[each.asset]
        assert shown.startswith(f"{each.asset}\n") and "-m resources.worker" in shown
        if each.needs.gpus:
            assert "GiB that can be filled, fits: " in shown
        if each.needs.gpus or each.needs.cost_model:
            assert "(assumed)" in shown or "bench/contexts.py" in shown
            assert "hours: not modelled" not in shown
        assert ("disk: checkpoints 732.3 GiB (2 checkpoints x" in shown) == (each.asset == "full_finetune_checkpoint")
    assert text.splitlines()[0].startswith("all stages read 1000 rollouts, 10000000 tokens")
    assert text.splitlines()[-1].endswith("13 of 17 stages that are modelled")


def test_a_node_with_half_the_gpus_takes_twice_as_long(
    paper: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    (tmp_path / "compute.yaml").write_text("gpus: 4\ncpus: 48\n")
    monkeypatch.setenv("LORASCOPE_COMPUTE", str(tmp_path / "compute.yaml"))
    training = explain_stages(paper).split("\n\n")[STAGES.index(stage("lora_checkpoint")) + 1]
    assert "\n  4 GPUs, 4 processes x 12 threads\n" in training and "--nproc-per-node 4" in training
    assert f"\n  hours: {2 * hours(paper, 'lora_checkpoint'):.2f}, " in training


@pytest.mark.parametrize(
    ("asset", "yaml"),
    [
        ("lora_checkpoint", "lora: {source: someone/adapter, revision: %s}"),
        ("full_finetune_checkpoint", "full_finetune: {source: someone/finetune, revision: %s}"),
        ("benchmark_scores", "benchmarks: {backend: server, server_url: 'http://127.0.0.1:8000/v1'} # %s"),
    ],
)
def test_a_stage_that_takes_what_is_published_or_asks_a_server_waits_for_no_gpu(
    paper: Experiment, tmp_path: Path, asset: str, yaml: str
) -> None:
    (tmp_path / "light.yaml").write_text(f"description: one stage without GPUs\n{yaml % ('a' * 40)}\n")
    light = Experiments(tmp_path).load("light")
    store, node = Store(tmp_path / "store"), Deployment(gpus=8, cpus=96)
    busy, idle = (job_of(stage(asset), one, keys(one), store, node) for one in (paper, light))
    assert (busy.gpus, busy.processes, busy.threads) == (8, 8, 12)
    assert (idle.gpus, idle.processes, idle.threads, idle.memory) == (0, 1, 4, None)


def test_a_dataset_that_nobody_has_counted_yet_gives_no_hours(paper: Experiment, tmp_path: Path) -> None:
    assert all(hours_of(each, paper, None, 8) is None for each in STAGES)


def test_the_sae_holds_two_dictionaries_and_the_model_and_is_refused_where_they_do_not_fit(
    paper: Experiment, tmp_path: Path
) -> None:
    found = sae_held(Setup(paper.sections, KNOWN[PUBLISHED[0]], paper.compute, 1))
    parts = {part.name: part.bytes for part in found.parts}
    assert parts["dictionaries"] == 2 * 4 * 2 * 448 * 3584 * 4
    assert parts["held-out states"] == 1_000_000 * 448 * 4
    sections = {**paper.sections, "sae": paper.sections["sae"].model_copy(update={"effect_rollouts": 0})}
    alone = sae_held(Setup(sections, KNOWN[PUBLISHED[0]], paper.compute, 1))
    assert alone.bytes < 4e9 < 65.5e9 < found.bytes
    store = Store(tmp_path / "store")
    deployment = Deployment(gpus=8, gpu_memory_gib=64)
    job = job_of(stage("batchtopk_sae"), paper, keys(paper), store, deployment)
    with pytest.raises(
        BadInput, match=r"batchtopk_sae does not fit on a GPU of 64 GiB.*weights 61.0 GiB .* = 65.\d GiB"
    ):
        check_fits(job, deployment)


def test_contexts_hold_the_sae_and_a_block_of_its_scores(paper: Experiment) -> None:
    found = contexts_held(Setup(paper.sections, KNOWN[PUBLISHED[0]], paper.compute, 8))
    assert found.bytes == 2 * 448 * 3584 * 4 + 2048 * (448 + 4 * 3584) * 4
