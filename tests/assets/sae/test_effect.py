"""Putting a state back into the model, against PEFT's own forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch

from assets.activations.capture import capture_states
from assets.activations.config import ActivationsConfig
from assets.dataset.artifact import S1kDataset
from assets.sae.artifact import Sae
from assets.sae.config import SaeConfig
from assets.sae.effect import Replayed, measure_effect, replay, state_put_back
from assets.sae.shuffle import Census, split_rollouts
from assets.sae.train import SaeMetrics, train
from resources.components import components
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.models import ModelConfig, load_adapted
from resources.shards import Shards, StateBatch
from tests.assets.sae.conftest import SILENT, SMALL
from tests.builders import build_random_adapter
from tests.shard_builders import build_dataset, build_shards, states_seen

COLUMNS = tuple(component.id for component in components(2))
EVERY = torch.arange(40)


def config_of(model: Path) -> ModelConfig:
    return ModelConfig(name=str(model), dtype="float32")


def rollout_of(seed: int, tokens: int = 40) -> torch.Tensor:
    return torch.randint(0, 256, (tokens,), generator=torch.Generator().manual_seed(seed))


def test_the_true_state_put_back_changes_nothing(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    rollouts = []
    for seed in range(2):
        ids = rollout_of(seed)
        rollouts.append(Replayed(ids, EVERY >= 10, EVERY, states_seen(adapted, ids)))
    effect = measure_effect(adapted, COLUMNS, rollouts, SILENT)
    assert effect.kl_reconstructed < 1e-9 < 1e-3 < effect.kl_zeroed
    assert effect.kl_recovered == pytest.approx(1, abs=1e-6)
    assert effect.cross_entropy_recovered == pytest.approx(1, abs=1e-4)
    assert (effect.tokens, effect.rollouts) == (80, 2)


def test_zeroing_is_the_base_model_and_numbers_follow_their_definitions(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    ids, counted = rollout_of(5), EVERY >= 25
    half = 0.5 * states_seen(adapted, ids)
    effect = measure_effect(adapted, COLUMNS, [Replayed(ids, counted, EVERY, half)], SILENT)
    with torch.no_grad():
        full = adapted(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        with adapted.disable_adapter():
            base = adapted(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        with state_put_back(adapted, COLUMNS, EVERY, half):
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


def test_what_no_token_tells_is_absent_instead_of_nought(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    ids = rollout_of(5)
    half = 0.5 * states_seen(adapted, ids)
    effect = measure_effect(adapted, COLUMNS, [Replayed(ids, EVERY < 0, EVERY, half)], SILENT)
    assert effect.kl_recovered is not None
    names = ("full", "reconstructed", "zeroed", "recovered")
    assert [getattr(effect, f"cross_entropy_{name}") for name in names] == [None] * 4  # nothing of it counts
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    effect = measure_effect(adapted, COLUMNS, [Replayed(ids, EVERY >= 10, EVERY, half)], SILENT)
    assert (effect.kl_zeroed, effect.cross_entropy_full) == (0, effect.cross_entropy_zeroed)
    assert (effect.kl_recovered, effect.cross_entropy_recovered) == (None, None)  # there is nothing to recover


def test_the_hooks_are_gone_afterwards(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    ids = rollout_of(1)
    before = states_seen(adapted, ids)
    with pytest.raises(ZeroDivisionError), state_put_back(adapted, COLUMNS, EVERY, torch.zeros(40, 14)):
        assert states_seen(adapted, ids).abs().max() == 0
        raise ZeroDivisionError
    assert torch.equal(states_seen(adapted, ids), before)


def test_components_that_the_adapter_lacks_are_named(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    with (
        pytest.raises(BadInput, match=r"no component L5\.q_proj"),
        state_put_back(adapted, ("L5.q_proj",), EVERY, torch.zeros(40, 1)),
    ):
        pass


def test_a_rank_above_one_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), build_random_adapter(tmp_path, tiny_model, rank=2), "cpu")
    with pytest.raises(BadInput, match="rank 2"), state_put_back(adapted, COLUMNS, EVERY, torch.zeros(40, 14)):
        pass


def log_p_with(
    adapted: torch.nn.Module, ids: torch.Tensor, position_N: torch.Tensor, state_NE: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities with these states at these tokens, by hooks of the test's own: [T, V]."""
    handles = []
    for column, component in enumerate(components(2)):

        def hook(_m: object, _i: object, out: torch.Tensor, column: int = column) -> torch.Tensor:
            return out.index_copy(1, position_N, state_NE[None, :, column, None])

        lora_A = adapted.get_submodule(f"base_model.model.{component.module}.lora_A.default")
        handles.append(lora_A.register_forward_hook(hook))
    with torch.no_grad():
        log_p_TV = adapted(input_ids=ids[None]).logits[0].double().log_softmax(-1)
    for handle in handles:
        handle.remove()
    return log_p_TV


def kl_at(full_TV: torch.Tensor, other_TV: torch.Tensor, positions: list[int]) -> float:
    return float((full_TV.exp() * (full_TV - other_TV)).sum(-1)[positions].mean())


def identity_sae() -> Sae:
    """relu(x) - relu(-x) = x: what it decodes is what it encoded."""
    W_dec_FD = torch.cat([torch.eye(14), -torch.eye(14)])
    return Sae(
        Path(), COLUMNS, 14, 0.0, W_dec_FD.T.contiguous(), torch.zeros(28), W_dec_FD, torch.zeros(14), torch.zeros(28)
    )


def test_a_state_is_put_back_at_its_own_token_and_nowhere_else(tiny_model: Path, tiny_adapter: Path) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    ids, given = rollout_of(2), torch.stack([torch.full((14,), 3.0), torch.full((14,), 7.0)])
    before = states_seen(adapted, ids)
    with state_put_back(adapted, COLUMNS, torch.tensor([4, 9]), given):
        after = states_seen(adapted, ids)
    assert torch.equal(after[[4, 9]], given)
    assert torch.equal(after[:4], before[:4])
    others = [t for t in range(40) if t not in (4, 9)]
    assert COLUMNS[0] == "L0.q_proj"  # reads the embeddings, which no state has changed
    assert torch.equal(after[others, 0], before[others, 0])


def test_kl_and_cross_entropy_are_means_over_what_captured_tokens_predict(
    tiny_model: Path, tiny_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured: 10 to 19 and 30 to 39. Of the tokens that count, 15 to 39, those predict 15 to 20 and 31 to 39."""
    monkeypatch.setattr("assets.sae.effect.LOGITS_AT_ONCE", 7)
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    ids, kept = rollout_of(5), [*range(10, 20), *range(30, 40)]
    position_N = torch.tensor(kept)
    half = 0.5 * states_seen(adapted, ids)[position_N]
    effect = measure_effect(adapted, COLUMNS, [Replayed(ids, EVERY >= 15, position_N, half)], SILENT)
    nowhere = torch.zeros(0, dtype=torch.long)
    full = log_p_with(adapted, ids, nowhere, half[:0])
    halved, zeroed = (log_p_with(adapted, ids, position_N, state_NE) for state_NE in (half, 0 * half))
    assert (effect.tokens, effect.rollouts) == (20, 1)
    assert effect.kl_reconstructed == pytest.approx(kl_at(full, halved, kept), rel=1e-4)
    assert effect.kl_zeroed == pytest.approx(kl_at(full, zeroed, kept), rel=1e-4)
    predicted = [*range(15, 21), *range(31, 40)]
    expected = [-float(np.mean([log_p[t - 1, ids[t]] for t in predicted])) for log_p in (full, halved, zeroed)]
    found = [effect.cross_entropy_full, effect.cross_entropy_reconstructed, effect.cross_entropy_zeroed]
    assert found == pytest.approx(expected, rel=1e-5)
    assert effect.kl_recovered == pytest.approx(1 - effect.kl_reconstructed / effect.kl_zeroed)
    recovered = (expected[2] - expected[1]) / (expected[2] - expected[0])
    assert effect.cross_entropy_recovered == pytest.approx(recovered, rel=1e-3)


def test_a_rollout_is_replayed_up_to_its_last_captured_token(tmp_path: Path) -> None:
    """Tokens 50 to 56, of which the last four count; captured at 2, 3 and 5."""
    dataset = S1kDataset.open(build_dataset(tmp_path, {0: np.arange(9), 8: np.arange(50, 57)}))
    state_BC = np.arange(42, dtype=np.float16).reshape(3, 14)
    batch = StateBatch(np.full(3, 8), np.array([2, 3, 5], np.int32), np.array([52, 53, 55]), state_BC)
    entering = np.array([1, 13])
    found = replay(identity_sae(), entering, batch, dataset, "cpu")
    assert found.token_ids_T.tolist() == [50, 51, 52, 53, 54, 55]
    assert found.counted_T.tolist() == [False, False, False, True, True, True]
    assert found.position_N.tolist() == [2, 3, 5]
    assert found.rebuilt_NE.tolist() == [[1, 13], [15, 27], [29, 41]]


def build_assistant_shards(
    model: Path, adapter: Path, folder: Path, rollouts: int, prompt_tokens: int
) -> tuple[Path, Path]:
    """The dataset of `rollout_of(r)` and the states that the real capture keeps under `positions: assistant`."""
    tokens = {r: rollout_of(r).numpy() for r in range(rollouts)}
    dataset = build_dataset(folder / "dataset", tokens, prompt_tokens)
    for name in ("shards", "captured"):
        (folder / name).mkdir()
    capture_states(
        model=config_of(model),
        activations=ActivationsConfig(positions="assistant"),
        s1k_dataset=dataset,
        lora_checkpoint=adapter,
        out=folder / "shards",
        scratch=folder / "captured",
        progress=SILENT,
        compute=ComputeConfig(profile="cpu"),
    )
    return dataset, folder / "shards"


def train_with_effect(
    model: Path, adapter: Path, dataset: Path, shards: Path, folder: Path, **knobs: object
) -> SaeMetrics:
    """The effect on two rollouts' first 30 tokens: `folder/out`, `folder/scratch`."""
    short = {"k": 8, "batch_tokens": 64, "epochs": 15, "effect_rollouts": 2, "effect_tokens": 30}
    for name in ("out", "scratch"):
        (folder / name).mkdir()
    return train(
        model=config_of(model),
        sae=SaeConfig.model_validate({**SMALL.model_dump(), **short, **knobs}),
        activation_shards=shards,
        s1k_dataset=dataset,
        lora_checkpoint=adapter,
        out=folder / "out",
        scratch=folder / "scratch",
        progress=SILENT,
        compute=ComputeConfig(profile="cpu"),
    )


def test_the_true_states_of_the_assistants_tokens_change_nothing(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    dataset, shards = build_assistant_shards(tiny_model, tiny_adapter, tmp_path, 2, prompt_tokens=11)
    opened, read = S1kDataset.open(dataset), Shards.open(shards)
    rollouts = [replay(identity_sae(), np.arange(14), read.rollout(r), opened, "cpu") for r in range(2)]
    effect = measure_effect(load_adapted(config_of(tiny_model), tiny_adapter, "cpu"), COLUMNS, rollouts, SILENT)
    assert effect.tokens == 2 * (40 - 11)
    assert effect.kl_reconstructed < 1e-5 < 1e-2 < effect.kl_zeroed
    assert effect.kl_recovered == pytest.approx(1, abs=1e-3)


def test_the_effect_is_measured_where_only_the_assistants_states_were_captured(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    """Of a rollout's first 30 tokens, the 19 from position 11 on."""
    dataset, shards = build_assistant_shards(tiny_model, tiny_adapter, tmp_path, 30, prompt_tokens=11)
    metrics = train_with_effect(tiny_model, tiny_adapter, dataset, shards, tmp_path)
    assert metrics.effect is not None
    assert (metrics.effect.rollouts, metrics.effect.tokens) == (2, 2 * 19)
    adapted, sae = load_adapted(config_of(tiny_model), tiny_adapter, "cpu"), Sae.open(tmp_path / "out")
    read, kept, expected = Shards.open(shards), EVERY[11:30], list[float]()
    for r in (
        split_rollouts(Census.take(read).rollouts, SMALL.held_out_fraction, SMALL.held_out_seed).evaluation[:2].tolist()
    ):
        state_NE = torch.from_numpy(read.rollout(r).state_BC[:19].astype(np.float32))
        rebuilt_NE, ids = sae.decode(sae.encode(state_NE), 19), rollout_of(r)[:30]
        full = log_p_with(adapted, ids, kept[:0], rebuilt_NE[:0])
        expected.append(kl_at(full, log_p_with(adapted, ids, kept, rebuilt_NE), kept.tolist()))
    assert metrics.effect.kl_reconstructed == pytest.approx(np.mean(expected), rel=1e-3)


def test_rollouts_without_a_captured_token_at_the_start_are_left_out(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    dataset, shards = build_assistant_shards(tiny_model, tiny_adapter, tmp_path, 30, prompt_tokens=11)
    metrics = train_with_effect(tiny_model, tiny_adapter, dataset, shards, tmp_path, epochs=1, effect_tokens=11)
    assert metrics.effect is None


def test_training_reports_the_effect_of_an_sae_on_captured_states(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    adapted = load_adapted(config_of(tiny_model), tiny_adapter, "cpu")
    tokens = {r: rollout_of(r) for r in range(30)}
    states = {r: states_seen(adapted, ids).numpy() for r, ids in tokens.items()}
    shards = build_shards(tmp_path / "shards", states)
    dataset = build_dataset(tmp_path / "dataset", {r: ids.numpy() for r, ids in tokens.items()})
    metrics = train_with_effect(tiny_model, tiny_adapter, dataset, shards, tmp_path)
    assert metrics.effect is not None
    assert (metrics.effect.rollouts, metrics.effect.tokens) == (2, 60)
    assert 0 < metrics.effect.kl_reconstructed < metrics.effect.kl_zeroed
    assert (metrics.effect.kl_recovered or 0) > 0.3
