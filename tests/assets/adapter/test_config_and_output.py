"""What the config may ask for, what the output is, and what is refused before any work."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

import resources.progress as progress_module
from assets.adapter.artifact import FullFinetuneCheckpoint, read_curve
from assets.adapter.config import FullFinetuneConfig, LoraConfig
from assets.adapter.examples import Pass
from assets.adapter.lora_model import wear_adapter
from assets.adapter.objective import RolloutLoss
from assets.adapter.train import train_lora
from assets.dataset.artifact import S1kDataset
from resources.adapters import CONFIG, WEIGHTS, Adapter
from resources.components import Component
from resources.errors import BadInput
from resources.models import ModelConfig
from resources.packing import pack
from resources.progress import Progress
from tests.assets.adapter.conftest import COMPUTE, World
from tests.builders import build_random_adapter, build_tiny_qwen2

ONE = LoraConfig(epochs=1)


def test_the_papers_adapter_has_8_388_608_parameters_of_the_32b_model() -> None:
    """448 components; 0.0256 % of 32.76 B (paper: "less than 0.03 %")."""
    with torch.device("meta"):
        base = Qwen2ForCausalLM(
            Qwen2Config(
                hidden_size=5120,
                intermediate_size=27648,
                num_hidden_layers=64,
                num_attention_heads=40,
                num_key_value_heads=8,
                vocab_size=152064,
                tie_word_embeddings=False,
            )
        )
    whole = sum(p.numel() for p in base.parameters())
    model = wear_adapter(base, LoraConfig(), "Qwen/Qwen2.5-32B-Instruct")
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == 8_388_608
    assert round(trainable / whole * 100, 4) == 0.0256
    assert len(LoraConfig().components(64)) == 448


def test_peft_loads_the_output_and_lowers_the_loss_with_it(world: World) -> None:
    out, metrics = world.lora("ours", LoraConfig(epochs=6, batch_size=4))
    base = AutoModelForCausalLM.from_pretrained(world.model.name)
    dataset = S1kDataset.open(world.dataset)

    def mean_loss(model: torch.nn.Module) -> float:
        total, count = 0.0, 0
        for r in dataset:
            ids = torch.tensor(dataset.token_ids(r)).long()
            rows = torch.tensor(dataset.loss_mask(r)[1:])
            with torch.no_grad():
                logits = model(ids[None]).logits[0, :-1][rows]
            total += float(torch.nn.functional.cross_entropy(logits, ids[1:][rows], reduction="sum"))
            count += int(rows.sum())
        return total / count

    before = mean_loss(base)
    after = mean_loss(PeftModel.from_pretrained(base, str(out)))
    assert before - after > 0.5
    assert metrics.last_epoch_loss == pytest.approx(after, abs=0.2)
    assert metrics.truncated_tokens == 0
    assert metrics.trainable_parameters == sum(
        t.numel() for side in ("A", "B") for t in getattr(Adapter.open(out), side).values()
    )
    assert {"loss.png", "loss.svg", "loss.vl.json"} <= {path.name for path in (out / "charts").iterdir()}
    assert list((out / "tensorboard").glob("events*"))


def test_a_running_training_shows_its_loss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "PICTURE_S", 0.0)
    monkeypatch.setattr(progress_module, "PICTURE_SHARE", 0.0)
    shown: list[tuple[str, bytes]] = []
    out, scratch = world.folders("watched")
    train_lora(
        model=world.model,
        lora=ONE.model_copy(update={"batch_size": 6}),
        s1k_dataset=world.dataset,
        out=out,
        scratch=scratch,
        progress=Progress(world.lines.append, show=lambda *picture: shown.append(picture)),
        compute=COMPUTE,
    )
    assert [name for name, _ in shown] == ["loss", "loss"]
    assert all(png.startswith(b"\x89PNG") for _, png in shown)


def test_a_training_of_a_single_step_of_rate_0_says_that_it_trains_nothing(world: World) -> None:
    said = "nothing will be trained: there is one step"
    out, _ = world.lora("still", ONE)
    assert any(line.startswith(said) for line in world.lines)
    assert not any(b.any() for b in Adapter.open(out).B.values())
    world.lines.clear()
    out, _ = world.lora("moved", ONE.model_copy(update={"warmup_ratio": 0.0}))
    assert not any(line.startswith(said) for line in world.lines)
    assert all(b.any() for b in Adapter.open(out).B.values())


@pytest.mark.parametrize(("points", "steps"), [(5, [2, 4, 6, 8, 9]), (4, [3, 6, 9]), (2, [5, 9])])
def test_a_long_curve_is_thinned_to_so_many_points_and_keeps_its_last(
    world: World, monkeypatch: pytest.MonkeyPatch, points: int, steps: list[int]
) -> None:
    monkeypatch.setattr("assets.adapter.train.CURVE_POINTS", points)
    out, metrics = world.lora("thinned", LoraConfig(epochs=3, batch_size=4, layers=(0,), projections=("q_proj",)))
    assert [row["step"] for row in metrics.loss_curve] == steps
    curve = read_curve(out)
    assert curve is not None
    assert curve.num_rows == metrics.steps == 9


def test_the_curve_counts_epochs_and_the_tokens_of_all_steps_so_far(world: World) -> None:
    dataset = S1kDataset.open(world.dataset)
    out, metrics = world.lora("counted", LoraConfig(epochs=2, batch_size=8, layers=(0,), projections=("q_proj",)))
    curve = read_curve(out)
    assert curve is not None
    assert curve["epoch"].to_pylist() == [1, 1, 2, 2]
    tokens = curve["tokens"].to_pylist()
    assert 0 < tokens[0] < tokens[1] == dataset.num_tokens and tokens[3] == metrics.tokens == 2 * dataset.num_tokens
    assert metrics.last_epoch_loss == pytest.approx(np.mean(curve["loss"].to_pylist()[2:]))
    assert metrics.truncated_tokens == 0


def test_two_runs_write_the_same_bytes(world: World) -> None:
    one, _ = world.lora("one", ONE)
    other, _ = world.lora("other", ONE)
    for name in (CONFIG, WEIGHTS):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_any_subset_of_layers_and_projections_can_be_adapted(world: World) -> None:
    out, _ = world.lora("some", ONE.model_copy(update={"layers": (1,), "projections": ("up_proj", "q_proj")}))
    assert Adapter.open(out).components == (Component(1, "q_proj"), Component(1, "up_proj"))
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(world.model.name), str(out))
    assert sum("lora_A" in name for name, _ in peft.named_parameters()) == 2


@pytest.mark.parametrize(
    ("knobs", "layers"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"layer_start": 2, "layer_end": 7, "layer_stride": 2}, [2, 4, 6]),
        ({"layers": (5, 1)}, [1, 5]),
    ],
)
def test_layers_are_chosen_by_range_or_list(knobs: dict[str, Any], layers: list[int]) -> None:
    found = LoraConfig(**knobs).components(8)
    assert sorted({component.layer for component in found}) == layers


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"layers": (9,)}, "layer 9, but the model has layers 0 to 7"),
        ({"layer_start": 8}, "adapts no layer"),
        ({"layers": ()}, "layers names no layer: list some"),
    ],
)
def test_layers_that_are_not_there_are_refused(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        LoraConfig(**knobs).components(8)


@pytest.fixture
def weightless(world: World, tmp_path: Path) -> World:
    """A world whose model is only described."""
    folder = Path(shutil.copytree(world.model.name, tmp_path / "weightless"))
    (folder / "model.safetensors").unlink()
    return World(ModelConfig(name=str(folder), dtype="float32"), world.dataset, world.folder)


def test_layers_beyond_the_model_are_refused_before_the_weights_are_loaded(weightless: World) -> None:
    with pytest.raises(BadInput, match="layer 99, but the model has layers 0 to 1"):
        weightless.lora("beyond", ONE.model_copy(update={"layers": (0, 99)}))


def test_an_unknown_projection_and_an_unpinned_hub_source_are_refused_by_the_config() -> None:
    with pytest.raises(ValidationError, match="gate_proj"):
        LoraConfig(projections=("gate",))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="set revision to a commit"):
        LoraConfig(source="jnward2/qwen-reasoning-lora")


def test_the_block_size_cuts_rollouts_and_counts_what_it_cut(world: World) -> None:
    dataset = S1kDataset.open(world.dataset)
    _, metrics = world.lora("cut", ONE.model_copy(update={"block_size": 100}))
    assert metrics.tokens == sum(min(length, 100) for length in dataset.lengths.values())
    assert metrics.truncated_tokens == dataset.num_tokens - metrics.tokens > 0


def test_a_rollout_whose_prompt_fills_the_block_is_left_out_and_named(world: World) -> None:
    dataset = S1kDataset.open(world.dataset)
    prompts = {r: int(dataset.loss_mask(r).argmax()) for r in dataset}
    block = max(prompts.values())  # one token short of the longest prompt's first target
    _, metrics = world.lora("cut", ONE.model_copy(update={"block_size": block}))
    assert metrics.rollouts_without_loss == [r for r, prompt in prompts.items() if prompt >= block]
    assert metrics.tokens == sum(min(dataset.lengths[r], block) for r, prompt in prompts.items() if prompt < block)
    assert metrics.truncated_tokens == sum(max(0, length - block) for length in dataset.lengths.values())


def test_a_block_without_any_answer_is_refused_before_the_weights_are_loaded(weightless: World) -> None:
    short = {"block_size": 8}
    for train in (
        partial(weightless.lora, "short-lora", ONE.model_copy(update=short)),
        partial(weightless.full, "short-full", FullFinetuneConfig().model_copy(update=short)),
    ):
        with pytest.raises(BadInput, match=r"block_size 8 cuts every answer off.*nothing to train on"):
            train()


def test_the_full_finetune_is_a_transformers_model_with_its_tokenizer(world: World) -> None:
    out, metrics = world.full("ours", FullFinetuneConfig(epochs=1, learning_rate=1e-3))
    assert metrics.trainable_share == 1.0
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.vocab_size == 260
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert FullFinetuneCheckpoint.open(out).table().num_rows == metrics.steps


def test_a_full_finetune_in_bfloat16_trains_float32_masters(world: World) -> None:
    """A rate so small that bf16 weights could not move: the masters do, and the stored model is bf16 again."""
    half = World(world.model.model_copy(update={"dtype": "bfloat16"}), world.dataset, world.folder)
    out, metrics = half.full("half", FullFinetuneConfig(epochs=3, batch_size=4, learning_rate=1e-3))
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.bfloat16
    _, single = world.full("single", FullFinetuneConfig(epochs=3, batch_size=4, learning_rate=1e-3))
    ours, theirs = ([row["loss"] for row in m.loss_curve] for m in (metrics, single))
    np.testing.assert_allclose(ours, theirs, rtol=0.02)


def test_an_adapter_of_a_bfloat16_model_has_float32_weights_and_follows_the_float32_curve(world: World) -> None:
    half = World(world.model.model_copy(update={"dtype": "bfloat16"}), world.dataset, world.folder)
    out, metrics = half.lora("half", LoraConfig(epochs=3, batch_size=4))
    assert {tensor.dtype for tensor in Adapter.open(out).A.values()} == {torch.float32}
    _, single = world.lora("single", LoraConfig(epochs=3, batch_size=4))
    ours, theirs = ([row["loss"] for row in m.loss_curve] for m in (metrics, single))
    np.testing.assert_allclose(ours, theirs, rtol=0.02)


def test_a_published_adapter_is_taken_as_it_is(world: World, tiny_adapter: Path) -> None:
    out, metrics = world.lora("taken", LoraConfig(source=str(tiny_adapter)))
    assert (out / WEIGHTS).read_bytes() == (tiny_adapter / WEIGHTS).read_bytes()
    assert metrics.source == str(tiny_adapter)
    assert metrics.steps == 0
    assert len(metrics.component_norms) == 14


def test_a_published_adapter_of_another_base_model_is_refused_by_its_shapes(
    world: World, tiny_adapter: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    torch.manual_seed(0)
    config = Qwen2Config.from_pretrained(world.model.name, hidden_size=64, intermediate_size=48)
    Qwen2ForCausalLM(config).save_pretrained(other)
    model = ModelConfig(name=str(other), dtype="float32")
    with pytest.raises(BadInput, match=r"another base model: its L0\.q_proj is 32 x 32, in .* it is 64 x 64"):
        World(model, world.dataset, tmp_path).lora("taken", LoraConfig(source=str(tiny_adapter)))
    deeper = build_random_adapter(tmp_path / "deeper", build_tiny_qwen2(tmp_path / "deep", num_layers=3))
    with pytest.raises(BadInput, match=r"adapts L2\.q_proj, but .* has 2 layers"):
        world.lora("deep-taken", LoraConfig(source=str(deeper)))


def test_a_published_finetune_is_taken_and_one_of_another_architecture_is_refused(world: World, tmp_path: Path) -> None:
    published = Path(shutil.copytree(world.model.name, tmp_path / "published"))
    out, _ = world.full("taken", FullFinetuneConfig(source=str(published)))
    assert (out / "model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()
    assert FullFinetuneCheckpoint.open(out).table().num_rows == 0
    deep = build_tiny_qwen2(tmp_path / "deep-model", num_layers=3)
    with pytest.raises(BadInput, match="num_hidden_layers 3"):
        world.full("deep", FullFinetuneConfig(source=str(deep)))
    with pytest.raises(BadInput, match="no transformers model"):
        world.full("none", FullFinetuneConfig(source=str(tmp_path / "taken-scratch")))


def test_more_recomputed_layers_than_layers_are_refused(world: World) -> None:
    with pytest.raises(BadInput, match="recomputed_layers is 3"):
        world.lora("ours", ONE, COMPUTE.model_copy(update={"recomputed_layers": 3}))


@pytest.mark.parametrize(("layers", "runs"), [(0, [1, 1]), (1, [2, 1]), (2, [2, 2]), (None, [2, 2])])
def test_the_first_layers_alone_run_again_in_the_backward_pass(
    tiny_model: Path, layers: int | None, runs: list[int]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    objective = RolloutLoss(model, torch.device("cpu"), layers, autocast=None)
    seen = [0, 0]
    for number, layer in enumerate(model.model.layers):
        layer.mlp.act_fn.register_forward_hook(lambda *_, at=number: seen.__setitem__(at, seen[at] + 1))
    objective(Pass(pack([np.arange(8, dtype=np.int32)]), np.arange(7), np.arange(1, 8))).backward()
    assert seen == runs


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_float32_masters_are_computed_with_in_the_precision_of_the_model(
    tiny_model: Path, precision: torch.dtype | None
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    objective = RolloutLoss(model, torch.device("cpu"), 0, precision)
    seen: list[torch.dtype] = []
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    loss = objective(Pass(pack([np.arange(8, dtype=np.int32)]), np.arange(7), np.arange(1, 8)))
    assert (seen, loss.dtype) == ([precision or torch.float32], torch.float32)
