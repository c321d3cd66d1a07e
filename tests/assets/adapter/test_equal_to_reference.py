"""The loop against a plain second implementation and against transformers' Trainer with PEFT, in float32."""

from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset, SequentialSampler
from transformers import Qwen2ForCausalLM, Trainer, TrainingArguments

from assets.adapter.config import FullFinetuneConfig, LoraConfig
from assets.adapter.loop import adamw
from assets.adapter.lora_model import wear_adapter
from assets.dataset.artifact import S1kDataset
from resources.adapters import WEIGHTS, Adapter
from resources.components import PROJECTIONS, components
from resources.models import ModelConfig, load_base
from tests.assets.adapter.conftest import World
from tests.assets.adapter.reference import batches, train_plainly

ONE = LoraConfig(epochs=1, batch_size=12, warmup_ratio=0)
"""One step of all rollouts; the first step of a warm-up has rate 0 and would move nothing."""
FIFTY = LoraConfig(epochs=9, batch_size=2)
"""54 steps of 2 rollouts; the paper's recipe otherwise."""


@dataclass(frozen=True)
class Trained:
    """What our loop made of a recipe."""

    folder: Path
    losses: list[float]


@pytest.fixture(scope="module")
def trained(
    tiny_model: Path, rollouts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[LoraConfig], Trained]:
    """Each recipe is trained once for all tests of this file."""
    world = World(ModelConfig(name=str(tiny_model), dtype="float32"), rollouts, tmp_path_factory.mktemp("trained"))

    @cache
    def train(lora: LoraConfig) -> Trained:
        out, metrics = world.lora(f"{lora.rank}-{lora.epochs}", lora)
        return Trained(out, [row["loss"] for row in metrics.loss_curve])

    # A frozen section can be hashed, which pydantic's annotations do not say.
    return cast("Callable[[LoraConfig], Trained]", train)


def initial(world: World, lora: LoraConfig) -> dict[str, torch.Tensor]:
    """A by PEFT's own initialisation from the config's seed, B zero."""
    torch.manual_seed(lora.seed)
    config = peft.LoraConfig(r=lora.rank, lora_alpha=16, use_rslora=True, target_modules=list(PROJECTIONS))
    model = peft.get_peft_model(Qwen2ForCausalLM.from_pretrained(world.model.name), config)
    state = model.state_dict()
    key = "base_model.model.{}.lora_{}.default.weight"
    return {f"{c.id}.{s}": state[key.format(c.module, s)].clone() for c in components(2) for s in "AB"}


def assert_same_adapter(folder: Path, expected: dict[str, torch.Tensor], tolerance: float) -> None:
    found = Adapter.open(folder)
    for c in found.components:
        torch.testing.assert_close(found.A[c], expected[f"{c.id}.A"], atol=tolerance, rtol=0)
        torch.testing.assert_close(found.B[c], expected[f"{c.id}.B"], atol=tolerance, rtol=0)


@pytest.mark.parametrize("lora", [ONE, ONE.model_copy(update={"rank": 3}), FIFTY], ids=["one", "rank-3", "fifty"])
def test_lora_steps_follow_the_plain_reference(
    world: World, trained: Callable[[LoraConfig], Trained], lora: LoraConfig
) -> None:
    ours, start = trained(lora), initial(world, lora)
    base = Qwen2ForCausalLM.from_pretrained(world.model.name)
    expected = train_plainly(base, S1kDataset.open(world.dataset), lora, start)
    assert any(not torch.equal(start[name], w) for name, w in expected.weights.items())
    np.testing.assert_allclose(ours.losses, expected.losses, atol=1e-5, rtol=0)
    assert_same_adapter(ours.folder, expected.weights, 1e-5)


def test_fifty_steps_lower_the_loss(trained: Callable[[LoraConfig], Trained]) -> None:
    """So that curves which agree are not curves of nothing."""
    losses = trained(FIFTY).losses
    assert len(losses) == 54
    assert np.mean(losses[:6]) - np.mean(losses[-6:]) > 0.5


def test_nine_full_finetune_steps_follow_the_plain_reference(world: World) -> None:
    config = FullFinetuneConfig(epochs=3, batch_size=4, learning_rate=1e-3)
    out, metrics = world.full("ours", config)
    base = Qwen2ForCausalLM.from_pretrained(world.model.name)
    start = dict(base.named_parameters())
    expected = train_plainly(base, S1kDataset.open(world.dataset), config, start)
    np.testing.assert_allclose([row["loss"] for row in metrics.loss_curve], expected.losses, atol=1e-5, rtol=0)
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        assert not torch.equal(weight, start[name])
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=0)


def test_the_weights_that_decay_are_those_of_transformers_trainer(world: World) -> None:
    model = Qwen2ForCausalLM.from_pretrained(world.model.name)
    config = FullFinetuneConfig(learning_rate=0.1, beta1=0.2, beta2=0.3, epsilon=0.4, weight_decay=0.5)
    groups = adamw(dict(model.named_parameters()), config).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    theirs = Trainer.get_decay_parameter_names(None, model)  # pyright: ignore[reportArgumentType]
    expected = {name: 0.5 if name in theirs else 0.0 for name, _ in model.named_parameters()}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == expected
    assert {(group["lr"], *group["betas"], group["eps"]) for group in groups} == {(0.1, 0.2, 0.3, 0.4)}


class InOrder(Trainer):
    """transformers' Trainer, fed in the order it is given."""

    def _get_train_sampler(self, train_dataset: object = None) -> SequentialSampler:  # noqa: ARG002
        assert isinstance(self.train_dataset, Sized)
        return SequentialSampler(self.train_dataset)


@pytest.mark.parametrize("lora", [ONE, FIFTY], ids=["one", "fifty"])
def test_lora_steps_are_those_of_transformers_trainer_with_peft(
    world: World, trained: Callable[[LoraConfig], Trained], lora: LoraConfig
) -> None:
    ours, dataset = trained(lora), S1kDataset.open(world.dataset)
    torch.manual_seed(lora.seed)
    config = peft.LoraConfig(
        r=1, lora_alpha=16, use_rslora=True, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(Qwen2ForCausalLM.from_pretrained(world.model.name), config)
    arguments = TrainingArguments(
        output_dir=str(world.folder / "trainer"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=lora.batch_size,
        learning_rate=lora.learning_rate,
        adam_beta1=lora.beta1,
        adam_beta2=lora.beta2,
        weight_decay=lora.weight_decay,
        warmup_steps=lora.warmup_ratio,
        lr_scheduler_type="cosine",
        num_train_epochs=1,  # the rows are those of all epochs, since ours come in another order in each
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = []
    for r in (r for batch in batches(dataset, lora) for r in batch):
        ids = torch.from_numpy(dataset.token_ids(r)).long()
        rows.append({"input_ids": ids, "labels": ids.masked_fill(~torch.from_numpy(dataset.loss_mask(r)), -100)})
    trainer = InOrder(
        model=model,
        args=arguments,
        train_dataset=cast("Dataset", rows),
        data_collator=lambda batch: {name: torch.stack([row[name] for row in batch]) for name in batch[0]},
    )
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    np.testing.assert_allclose(ours.losses, logged, atol=1e-5, rtol=0)
    theirs, found = peft.get_peft_model_state_dict(model), load_file(ours.folder / WEIGHTS)
    assert found.keys() == theirs.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-5, rtol=0)


def test_the_fused_matrix_gives_pefts_own_output_and_gradients(world: World) -> None:
    lora = LoraConfig(rank=2)
    ids = torch.arange(30)[None]
    model = wear_adapter(load_base(world.model, "cpu"), lora, "tiny")
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)

    def outcome() -> tuple[torch.Tensor, list[torch.Tensor]]:
        logits = model(ids).logits
        trainable = [p for p in model.parameters() if p.requires_grad]
        return logits.detach(), list(torch.autograd.grad(logits.square().mean(), trainable))

    ours, our_grads = outcome()
    for module in model.modules():
        module.__dict__.pop("forward", None)
    theirs, their_grads = outcome()
    assert len(our_grads) == 2 * 7 * 2
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(our_grads, their_grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
