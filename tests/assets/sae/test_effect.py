"""Putting a state back into the model, against PEFT's own forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch

from assets.sae.config import SaeConfig
from assets.sae.effect import Replayed, measure_effect, state_put_back
from assets.sae.train import train
from resources.components import components
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.models import ModelConfig, load_adapted
from tests.assets.sae.conftest import SILENT, SMALL
from tests.builders import build_random_adapter
from tests.shard_builders import build_dataset, build_shards

COLUMNS = tuple(component.id for component in components(2))


def config_of(model: Path) -> ModelConfig:
    return ModelConfig(name=str(model), dtype="float32")


def captured(adapted: torch.nn.Module, token_ids: torch.Tensor) -> torch.Tensor:
    """Every component's lora_A output on a rollout: [T, 14]."""
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for component in components(2):
        module = adapted.get_submodule(f"base_model.model.{component.module}.lora_A.default")
        handles.append(
            module.register_forward_hook(lambda _m, _i, out, name=component.id: seen.__setitem__(name, out[0, :, 0]))
        )
    with torch.no_grad():
        adapted(input_ids=token_ids[None])
    for handle in handles:
        handle.remove()
    return torch.stack([seen[column] for column in COLUMNS], dim=1)


def rollout_of(seed: int, tokens: int = 40) -> torch.Tensor:
    return torch.randint(0, 256, (tokens,), generator=torch.Generator().manual_seed(seed))


def test_the_true_state_put_back_changes_nothing(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    rollouts = []
    for seed in range(2):
        ids = rollout_of(seed)
        rollouts.append(Replayed(ids, torch.arange(40) >= 10, captured(adapted, ids)))
    effect = measure_effect(adapted, COLUMNS, rollouts, SILENT)
    assert effect.kl_reconstructed < 1e-9 < 1e-3 < effect.kl_zeroed
    assert effect.kl_recovered == pytest.approx(1, abs=1e-6)
    assert effect.cross_entropy_recovered == pytest.approx(1, abs=1e-4)
    assert (effect.tokens, effect.rollouts) == (80, 2)


def test_zeroing_is_the_base_model_and_numbers_follow_their_definitions(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    ids, counted = rollout_of(5), torch.arange(40) >= 25
    half = 0.5 * captured(adapted, ids)
    effect = measure_effect(adapted, COLUMNS, [Replayed(ids, counted, half)], SILENT)
    with torch.no_grad():
        full = adapted(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        with adapted.disable_adapter():
            base = adapted(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        with state_put_back(adapted, COLUMNS, half):
            halved = adapted(input_ids=ids[None]).logits[0].double().log_softmax(-1)
    assert effect.kl_zeroed == pytest.approx(float((full.exp() * (full - base)).sum(-1).mean()), rel=1e-4)
    assert effect.kl_reconstructed == pytest.approx(float((full.exp() * (full - halved)).sum(-1).mean()), rel=1e-4)

    def cross_entropy(log_p: torch.Tensor) -> float:
        return -float(np.mean([log_p[t - 1, ids[t]] for t in range(25, 40)]))

    ce_full, ce_half, ce_base = map(cross_entropy, (full, halved, base))
    assert effect.cross_entropy_full == pytest.approx(ce_full, rel=1e-5)
    assert effect.cross_entropy_zeroed == pytest.approx(ce_base, rel=1e-5)
    recovered = (ce_base - ce_half) / (ce_base - ce_full)
    assert effect.cross_entropy_recovered == pytest.approx(recovered, rel=1e-3)


def test_the_hooks_are_gone_afterwards(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    ids = rollout_of(1)
    before = captured(adapted, ids)
    with pytest.raises(ZeroDivisionError), state_put_back(adapted, COLUMNS, torch.zeros(40, 14)):
        assert captured(adapted, ids).abs().max() == 0
        raise ZeroDivisionError
    assert torch.equal(captured(adapted, ids), before)


def test_components_that_the_adapter_lacks_are_named(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    with (
        pytest.raises(BadInput, match=r"no component L5\.q_proj"),
        state_put_back(adapted, ("L5.q_proj",), torch.zeros(4, 1)),
    ):
        pass


def test_a_rank_above_one_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), build_random_adapter(tmp_path, tiny_model, rank=2), "cpu")
    with pytest.raises(BadInput, match="rank 2"), state_put_back(adapted, COLUMNS, torch.zeros(4, 14)):
        pass


def test_training_reports_the_effect_of_an_sae_on_captured_states(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    tokens = {r: rollout_of(r) for r in range(30)}
    states = {r: captured(adapted, ids).numpy() for r, ids in tokens.items()}
    shards = build_shards(tmp_path / "shards", states)
    dataset = build_dataset(tmp_path / "dataset", {r: ids.numpy() for r, ids in tokens.items()})
    config = SaeConfig(
        **{**SMALL.model_dump(), "k": 8, "batch_tokens": 64, "epochs": 15, "effect_rollouts": 2, "effect_tokens": 30}
    )
    for folder in ("out", "scratch"):
        (tmp_path / folder).mkdir()
    metrics = train(
        model=config_of(tiny_model),
        sae=config,
        activation_shards=shards,
        s1k_dataset=dataset,
        lora_checkpoint=tiny_adapter,
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        progress=SILENT,
        compute=ComputeConfig(profile="cpu"),
    )
    assert metrics.effect is not None
    assert (metrics.effect.rollouts, metrics.effect.tokens) == (2, 60)
    assert 0 < metrics.effect.kl_reconstructed < metrics.effect.kl_zeroed
    assert metrics.effect.kl_recovered > 0.3
