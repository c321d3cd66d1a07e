"""The whole training: quality on data with known structure, resuming, and every kind of bad input."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from assets.sae.artifact import WEIGHTS_FILE, Sae
from assets.sae.baselines import Budget, _Jump, draw_random
from assets.sae.batchtopk import InputScale, start_weights
from assets.sae.config import SaeConfig
from assets.sae.shuffle import Census, split_rollouts
from assets.sae.train import CHECKPOINT, SaeMetrics
from resources.errors import BadInput, Interrupted
from resources.progress import Progress
from resources.shards import Shards
from tests.assets.sae.conftest import COMPONENTS, SILENT, SMALL, run_train, sparse_states
from tests.shard_builders import build_shards


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "out" / WEIGHTS_FILE)


def test_it_explains_held_out_states_that_are_sparse_sums(trained: tuple[SaeMetrics, Path]) -> None:
    metrics, _ = trained
    assert metrics.held_out.fvu < 0.3
    assert metrics.held_out.tokens == 6 * 200
    assert metrics.training_tokens == 48 * 200
    assert metrics.steps == 6 * round(48 * 200 / 256)


def test_held_out_l0_is_near_k(trained: tuple[SaeMetrics, Path]) -> None:
    metrics, _ = trained
    assert abs(metrics.l0_error) < 0.05
    assert metrics.l0_error == pytest.approx(metrics.held_out.l0 / SMALL.k - 1)


def test_baselines_have_the_same_budget_and_training_pays(trained: tuple[SaeMetrics, Path]) -> None:
    rows = {str(row["dictionary"]): row for row in trained[0].baselines}
    assert list(rows) == ["batchtopk", "topk", "jumprelu", "pca", "random"]
    for name in ("batchtopk", "topk", "jumprelu"):
        assert float(rows[name]["fvu"]) < 0.6 * float(rows["pca"]["fvu"])
    assert float(rows["topk"]["fvu"]) < float(rows["random"]["fvu"])
    for name in ("pca", "random"):
        assert rows[name]["l0"] == SMALL.k
    for name in ("topk", "jumprelu"):
        assert float(rows[name]["l0"]) == pytest.approx(SMALL.k, rel=0.1)


def test_jumprelu_keeps_every_positive_score_where_k_asks_for_more(tmp_path: Path) -> None:
    """Half of the 56 latents' scores are positive at the start, so thresholds begin at 0."""
    shards = build_shards(tmp_path / "shards", sparse_states(12, 100))
    config = SMALL.model_copy(update={"k": 40, "epochs": 1, "baselines": ("jumprelu",)})
    row = run_train(config, shards, tmp_path).baselines[1]
    assert row["l0"] == pytest.approx(28, rel=0.1)
    assert np.isfinite([float(row["fvu"]), float(row["cosine"])]).all()


def test_a_threshold_learns_from_the_scores_within_half_a_width_of_it() -> None:
    threshold_F = torch.ones(3, requires_grad=True)
    gate_BF = _Jump.apply(torch.tensor([[0.95, 1.15, 1.04], [3.0, 3.0, 0.92]]), threshold_F, 0.2)
    assert gate_BF.tolist() == [[0, 1, 1], [1, 1, 0]]
    gate_BF.backward(torch.tensor([[2.0, 2.0, 3.0], [1.0, 1.0, 1.0]]))
    assert threshold_F.grad is not None
    assert threshold_F.grad.tolist() == pytest.approx([-2 / 0.2, 0, -(3 + 1) / 0.2])


def test_matching_pursuit_takes_a_direction_whichever_way_it_points() -> None:
    sample = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float16)
    order: Any = SimpleNamespace(sample=lambda _tokens: sample)
    config, scale = SaeConfig(k=1), InputScale(torch.ones(6), 1.0, torch.ones(6, dtype=torch.bool))
    budget = Budget(config, order, scale, 12, torch.zeros(6), "cpu", Path())
    mean_E, directions_FE = budget.sample().mean(dim=0), start_weights(config, budget.sample(), 12).W_dec_FD
    state_BE = torch.stack([mean_E - 3 * directions_FE[7], mean_E + 2 * directions_FE[4]])
    rebuilt_BE, pairs = draw_random(budget, SILENT)(state_BE)
    torch.testing.assert_close(rebuilt_BE, state_BE)
    assert pairs == 2


def test_the_loss_curve_falls_and_ends_at_the_last_step(trained: tuple[SaeMetrics, Path]) -> None:
    curve = trained[0].loss_curve
    assert curve[-1]["step"] == trained[0].steps
    assert curve[-1]["fvu"] < 0.5 * curve[0]["fvu"]


def test_the_authors_recipe_trains_too(sparse_shards: Path, tmp_path: Path) -> None:
    config = SaeConfig(**{**SMALL.model_dump(exclude_unset=True), "preset": "authors"})
    assert (config.decoder, config.activation, config.decay_fraction) == ("free", "identity", 0.0)
    metrics = run_train(config, sparse_shards, tmp_path)
    assert metrics.held_out.fvu < 0.4
    assert abs(metrics.l0_error) < 0.05


@pytest.mark.parametrize("preset", ["default", "authors"])
def test_cosines_of_all_dictionaries_are_around_the_mean_training_state(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six row groups: the sample that the mean is taken of holds every training token."""
    monkeypatch.setattr("assets.sae.train.BLOCK", 300)
    states = sparse_states(60, 200)
    shards = build_shards(tmp_path / "shards", states, rollouts_per_shard=10, row_group_rows=2000)
    config = SaeConfig(**{**SMALL.model_dump(exclude_unset=True), "preset": preset, "baselines": ("pca",)})
    metrics = run_train(config, shards, tmp_path)
    split = split_rollouts(np.array(list(states)), SMALL.held_out_fraction, SMALL.held_out_seed)
    training, held = (
        np.concatenate([states[r].astype(np.float16) for r in rollouts]).astype(np.float64)
        for rollouts in (split.training, split.evaluation)
    )
    sae, mean = Sae.open(tmp_path / "out"), training.mean(axis=0)
    rebuilt = sae.decode(sae.encode(torch.from_numpy(held).float()), len(held)).double().numpy()
    basis = np.linalg.svd(training - mean, full_matrices=False)[2][: SMALL.k]
    found = [row["cosine"] for row in metrics.baselines]
    projected = (held - mean) @ basis.T @ basis
    expected = [mean_cosine(held - mean, rebuilt - mean), mean_cosine(held - mean, projected)]
    assert found == pytest.approx(expected, rel=1e-4)
    assert metrics.held_out.cosine == found[0]


def mean_cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)))


def test_latents_that_never_fired_are_dead_when_training_stops_before_an_epochs_end(
    sparse_shards: Path, tmp_path: Path
) -> None:
    """12 of the 38 batches of 9600 tokens hold round(12 x 9600 / 38) = 3032."""
    short = {"k": 1, "expansion": 64, "epochs": 0.3, "dead_after_tokens": 1_000_000}
    metrics = run_train(SMALL.model_copy(update=short), sparse_shards, tmp_path)
    silent = load_file(tmp_path / "scratch" / CHECKPOINT)["silent"]
    never = int((silent == 3032).sum())
    assert (metrics.steps, metrics.training_tokens) == (12, 3032)
    assert (metrics.dead_latents, metrics.live_latents) == (never, 64 * COMPONENTS - never)
    assert 0 < never < 64 * COMPONENTS == len(silent)


def test_a_line_of_progress_counts_one_step(sparse_shards: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    run_train(SMALL.model_copy(update={"epochs": 0.2}), sparse_shards, tmp_path, Progress(lines.append, 0))
    told = [line for line in lines if line.startswith("SAE step ")]
    assert told
    for line in told:
        assert line.count("step") == 1, line
        assert "  fvu " in line


class Killed(RuntimeError):
    """Stands for a kill."""


def killing(at_step: int) -> Progress:
    def emit(line: str) -> None:
        if line.startswith(f"SAE step {at_step}/"):
            raise Killed

    return Progress(emit, interval_s=0.0)


@pytest.mark.parametrize("preset", ["default", "authors"])
def test_a_killed_training_resumes_to_the_same_bits(preset: str, sparse_shards: Path, tmp_path: Path) -> None:
    config = SaeConfig(
        **{**SMALL.model_dump(exclude_unset=True), "preset": preset, "epochs": 2.5, "checkpoint_steps": 7}
    )
    run_train(config, sparse_shards, tmp_path / "straight")
    for step in (5, 23, 60):
        with pytest.raises(Killed):
            run_train(config, sparse_shards, tmp_path / "killed", killing(step))
    lines: list[str] = []
    resumed = run_train(config, sparse_shards, tmp_path / "killed", Progress(lines.append))
    assert "SAE step: going on from step 56" in lines
    straight, killed = weights_of(tmp_path / "straight"), weights_of(tmp_path / "killed")
    for name, tensor in straight.items():
        assert torch.equal(tensor, killed[name]), name
    assert resumed.loss_curve[-1]["step"] == resumed.steps


def test_a_warning_of_the_walltimes_end_saves_the_step_it_finds_and_finished_baselines_stay(
    sparse_shards: Path, tmp_path: Path
) -> None:
    config = SMALL.model_copy(update={"epochs": 1, "baselines": ("pca", "topk"), "checkpoint_steps": 10_000})
    straight = run_train(config, sparse_shards, tmp_path / "straight")
    for moment in ("SAE step 7/", "TopK step 9/"):
        heard: list[str] = []
        warned = Progress(heard.append, 0, stop=lambda heard=heard, moment=moment: heard[-1].startswith(moment))
        with pytest.raises(Interrupted, match=f"saved after step {moment[-2]} of 38"):
            run_train(config, sparse_shards, tmp_path / "warned", warned)
    lines: list[str] = []
    resumed = run_train(config, sparse_shards, tmp_path / "warned", Progress(lines.append, 0))
    assert lines[0] == "SAE step: going on from step 38" and "TopK step: going on from step 9" in lines
    assert resumed.baselines == straight.baselines
    for name, tensor in weights_of(tmp_path / "straight").items():
        assert torch.equal(tensor, weights_of(tmp_path / "warned")[name]), name


def test_the_seed_sets_the_result(sparse_shards: Path, tmp_path: Path) -> None:
    short = SMALL.model_copy(update={"epochs": 0.3})
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_train(short.model_copy(update={"seed": seed}), sparse_shards, tmp_path / name)
    first, same, other = (weights_of(tmp_path / name)["W_enc"] for name in "abc")
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("input_scale", ["scalar", "column"])
def test_states_four_times_as_large_train_the_same_latents_on_weights_that_take_and_give_such_states(
    tmp_path: Path, input_scale: str
) -> None:
    """By a power of two, so that every number is the same to the last bit."""
    states = {r: state.astype(np.float16) for r, state in sparse_states(20, 100).items()}
    config = SMALL.model_copy(update={"input_scale": input_scale, "epochs": 1})
    found = {}
    for times in (1, 4):
        folder = tmp_path / f"x{times}"
        shards = build_shards(folder / "shards", {r: times * state for r, state in states.items()}, row_group_rows=700)
        found[times] = run_train(config, shards, folder).held_out, weights_of(folder)
    (metrics, weights), (others, scaled) = found[1], found[4]
    assert others == metrics
    factors = {"W_enc": 1 / 4, "b_enc": 1, "threshold": 1, "W_dec": 4, "b_dec": 4}
    assert factors.keys() == weights.keys()
    assert all(torch.equal(scaled[name], weights[name] * times) for name, times in factors.items())


def test_chosen_components_train_alone_in_an_sae_of_full_width(sparse_shards: Path, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"projections": ("up_proj", "down_proj"), "k": 2, "epochs": 1})
    metrics = run_train(config, sparse_shards, tmp_path)
    assert (metrics.d_in, metrics.d_sae) == (4, 16)
    sae = Sae.open(tmp_path / "out")
    assert sae.d_in == COMPONENTS
    entering = [i for i, column in enumerate(sae.columns) if column.split(".")[1] in ("up_proj", "down_proj")]
    others = [i for i in range(COMPONENTS) if i not in entering]
    assert sae.W_enc_DF[others].abs().max() == 0 == sae.W_dec_FD[:, others].abs().max()
    state = torch.randn(50, COMPONENTS)
    moved = state.clone()
    moved[:, others] += 100
    assert torch.equal(sae.encode(state).value_N, sae.encode(moved).value_N)


def test_a_column_that_never_moves_is_kept_and_reported(tmp_path: Path) -> None:
    states = sparse_states(12, 100)
    for state in states.values():
        state[:, 4] = 0
    metrics = run_train(SMALL, build_shards(tmp_path / "shards", states), tmp_path)
    assert metrics.constant_columns == ["L0.gate_proj"]
    assert metrics.d_in == COMPONENTS
    assert np.isfinite(metrics.held_out.fvu)
    sae = Sae.open(tmp_path / "out")
    state = torch.from_numpy(states[0]).float()
    assert sae.decode(sae.encode(state), len(state))[:, 4].abs().max() < 0.05


def test_nan_is_named_with_its_place(tmp_path: Path) -> None:
    states = sparse_states(12, 100)
    states[21][37, 2] = np.nan
    shards = build_shards(tmp_path / "shards", states)
    with pytest.raises(BadInput, match=r"state of L0\.v_proj at rollout 21, position 37 is nan"):
        run_train(SMALL.model_copy(update={"held_out_seed": seed_training_on(21, shards)}), shards, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["calibration", "evaluation"])
def test_a_held_out_state_that_is_not_finite_is_named_with_its_place(part: str, value: float, tmp_path: Path) -> None:
    states = sparse_states(12, 100)
    split = split_rollouts(np.array(list(states)), SMALL.held_out_fraction, SMALL.held_out_seed)
    rollout = int(getattr(split, part)[0])
    states[rollout][37, 2] = value
    shards = build_shards(tmp_path / "shards", states)
    with pytest.raises(BadInput, match=rf"state of L0\.v_proj at rollout {rollout}, position 37 is {value}: capture"):
        run_train(SMALL.model_copy(update={"epochs": 1, "seed": 7}), shards, tmp_path)  # whatever the SAE's own seed


def seed_training_on(rollout: int, shards: Path) -> int:
    ids = Census.take(Shards.open(shards)).rollouts
    return next(seed for seed in range(50) if rollout in split_rollouts(ids, 0.2, seed).training)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_in": 448}, "sae.d_in is 448, but the activation shards have 14 columns"),
        ({"k": 56}, "sae.k is 56 but the dictionary has 56 latents"),
        ({"batch_tokens": 100_000}, "9600 training tokens are fewer than sae.batch_tokens = 100000"),
        ({"layers": (0, 7)}, "sae.layers names layer 7, of which the adapter has no component"),
        ({"projections": ()}, "leave none of the adapter's 14 components"),
    ],
)
def test_a_config_that_does_not_fit_the_shards_is_refused(
    change: dict[str, object], message: str, sparse_shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        run_train(SMALL.model_copy(update=change), sparse_shards, tmp_path)


def test_shards_from_two_adapters_are_refused(tmp_path: Path) -> None:
    states = sparse_states(8, 50)
    folder = build_shards(tmp_path / "a", states)
    other = build_shards(tmp_path / "b", states, fingerprint="another adapter")
    (folder / "shard-00001.parquet").write_bytes((other / "shard-00001.parquet").read_bytes())
    with pytest.raises(BadInput, match="from another adapter"):
        run_train(SMALL, folder, tmp_path)


def test_shards_whose_components_lie_in_another_order_are_refused(tmp_path: Path) -> None:
    states = {r: state[:, :2] for r, state in sparse_states(8, 50).items()}
    folder = build_shards(tmp_path / "a", states, ("L0.q_proj", "L0.k_proj"))
    other = build_shards(tmp_path / "b", states, ("L0.k_proj", "L0.q_proj"))
    (folder / "shard-00001.parquet").write_bytes((other / "shard-00001.parquet").read_bytes())
    with pytest.raises(BadInput, match="from another adapter"):
        run_train(SMALL, folder, tmp_path)


def test_an_unknown_projection_is_refused_when_the_config_is_read() -> None:
    with pytest.raises(ValueError, match="should be 'q_proj'"):
        SaeConfig.model_validate({"projections": ["gate"]})


def test_a_preset_fills_only_what_is_not_written() -> None:
    config = SaeConfig(preset="authors", decoder="unit")
    assert (config.decoder, config.center) == ("unit", False)
    assert SaeConfig(**config.model_dump()) == config
