"""What lies on disk encodes as trained, by the fixed threshold, and its table says what it should."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from assets.sae.artifact import CONFIG_FILE, LATENTS, Sae
from assets.sae.batchtopk import Folded, InputScale, Weights, fold
from assets.sae.config import SaeConfig
from assets.sae.evaluate import Errors, by_projection, decoder_similarity, evaluate, quantile_of_counts
from assets.sae.export import DICTIONARY_LEARNING_FILE, to_sae, write_dictionary_learning
from assets.sae.latents import SparseLatents
from assets.sae.threshold import quantile_threshold
from assets.sae.train import SaeMetrics
from resources.errors import BadInput
from tests.assets.sae.conftest import Preset


def dense_latents(sae: Sae, state: torch.Tensor) -> torch.Tensor:
    pre = state @ sae.W_enc_DF + sae.b_enc_F
    return pre * (pre > sae.threshold_F)


def to_dense(latents: SparseLatents, rows: int, width: int) -> torch.Tensor:
    dense = torch.zeros(rows, width)
    dense[latents.row_N, latents.latent_N] = latents.value_N
    return dense


def test_encoding_a_token_does_not_depend_on_its_batch(trained: tuple[SaeMetrics, Path]) -> None:
    sae = Sae.open(trained[1])
    state = 2 * torch.randn(5000, sae.d_in)
    together = to_dense(sae.encode(state), 5000, sae.d_sae)
    alone = torch.cat([to_dense(sae.encode(row[None]), 1, sae.d_sae) for row in state[:50]])
    torch.testing.assert_close(together[:50], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together, dense_latents(sae, state), rtol=1e-5, atol=1e-5)


def test_pairs_are_sorted_by_row_then_latent(trained: tuple[SaeMetrics, Path]) -> None:
    sae = Sae.open(trained[1])
    latents = sae.encode(2 * torch.randn(9000, sae.d_in))
    place = latents.row_N * sae.d_sae + latents.latent_N
    assert bool((place.diff() > 0).all())
    assert int(latents.row_N.max()) > 8192


def test_decoding_is_the_dense_product(trained: tuple[SaeMetrics, Path]) -> None:
    sae = Sae.open(trained[1])
    state = torch.randn(100, sae.d_in)
    state[7] = -100 * sae.b_enc_F.new_ones(sae.d_in)
    expected = dense_latents(sae, state) @ sae.W_dec_FD + sae.b_dec_D
    torch.testing.assert_close(sae.decode(sae.encode(state), 100), expected, rtol=1e-4, atol=1e-4)
    nothing = SparseLatents(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0))
    assert torch.equal(sae.decode(nothing, 3), sae.b_dec_D.expand(3, -1))


@pytest.mark.parametrize("bad", [torch.zeros(3, 5), torch.zeros(14), torch.full((2, 14), torch.nan)])
def test_states_that_cannot_be_encoded_are_refused(bad: torch.Tensor, trained: tuple[SaeMetrics, Path]) -> None:
    with pytest.raises(BadInput):
        Sae.open(trained[1]).encode(bad)


def test_a_folder_without_an_sae_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no batchtopk_sae"):
        Sae.open(tmp_path)


def test_the_table_has_a_row_per_latent(trained: tuple[SaeMetrics, Path]) -> None:
    metrics, folder = trained
    table = Sae.open(folder).table()
    assert table.schema.equals(LATENTS)
    assert table.num_rows == metrics.d_sae
    assert sum(table["density"].to_pylist()) == pytest.approx(metrics.held_out.l0)
    assert sum(table["dead"].to_pylist()) == metrics.dead_latents
    assert (folder / DICTIONARY_LEARNING_FILE).is_file()
    assert {path.name for path in (folder / "charts").glob("*.png")} >= {"loss.png", "l0.png", "density.png"}


def test_the_saelens_config_names_a_jumprelu_without_input_bias(trained: tuple[SaeMetrics, Path]) -> None:
    config = json.loads((trained[1] / CONFIG_FILE).read_text())
    assert (config["architecture"], config["apply_b_dec_to_input"]) == ("jumprelu", False)
    assert (config["d_in"], config["d_sae"], config["normalize_activations"]) == (14, 56, "none")


@pytest.mark.parametrize("preset", ["default", "authors"])
def test_folding_keeps_latents_and_selection(preset: Preset) -> None:
    """Scaled, centred training arithmetic against the folded weights on raw states."""
    config = SaeConfig(preset=preset)
    torch.manual_seed(0)
    W_dec = torch.randn(20, 6) * torch.linspace(0.5, 3, 20)[:, None]
    if config.decoder == "unit":
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
    weights = Weights(torch.randn(20, 6), torch.randn(20), W_dec, torch.randn(6))
    scale = InputScale(torch.linspace(0.1, 4, 6), 1.0, torch.ones(6, dtype=torch.bool))
    raw = torch.randn(40, 6) * scale.scale_D + 1
    scaled = scale.apply(raw)
    pre = (scaled - weights.b_dec_D if config.center else scaled) @ weights.W_enc_FD.T + weights.b_enc_F
    threshold = 1.5
    fires = pre * W_dec.norm(dim=1) > threshold
    expected = ((pre * fires) @ W_dec + weights.b_dec_D) * scale.scale_D
    folded = fold(config, weights, scale.scale_D)
    sae = to_sae(folded, tuple("abcdef"), torch.arange(6), 2, threshold, Path())
    latents = sae.encode(raw)
    assert torch.equal(to_dense(latents, 40, 20) != 0, fires)
    torch.testing.assert_close(to_dense(latents, 40, 20), pre * fires, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(latents, 40), expected, rtol=1e-5, atol=1e-4)


def build_folded() -> Folded:
    """Two columns that entered, three latents; the last one's decoder is gone."""
    W_dec_FD = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [0.0, 0.0]])
    return Folded(
        W_enc_DF=torch.tensor([[1.0, -1.0, 2.0], [0.5, 2.0, 1.0]]),
        b_enc_F=torch.tensor([0.25, -0.5, 1.0]),
        W_dec_FD=W_dec_FD,
        b_dec_D=torch.tensor([0.75, -1.25]),
        norm_F=W_dec_FD.norm(dim=1),
    )


def test_columns_that_did_not_enter_reach_no_latent_and_are_not_written() -> None:
    sae = to_sae(build_folded(), tuple("abc"), torch.tensor([0, 2]), 1, 0.0, Path())
    assert sae.W_enc_DF.tolist() == [[1.0, -1.0, 2.0], [0.0, 0.0, 0.0], [0.5, 2.0, 1.0]]
    assert sae.W_dec_FD.tolist() == [[1.0, 0.0, 2.0], [-3.0, 0.0, 0.5], [0.0, 0.0, 0.0]]
    assert sae.b_dec_D.tolist() == [0.75, 0.0, -1.25]
    assert sae.threshold_F.tolist() == [0.0, 0.0, 0.0]  # also of a latent whose scores are all 0


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_the_file_for_dictionary_learning_encodes_by_its_formula_to_what_the_sae_does(
    threshold: float, tmp_path: Path
) -> None:
    """Its `BatchTopKSAE`: relu(W_enc (x - b_dec) + b_enc), what is above one threshold of it, and W_dec f + b_dec."""
    sae = to_sae(build_folded(), tuple("abc"), torch.tensor([0, 2]), 1, threshold, tmp_path)
    write_dictionary_learning(tmp_path, sae)
    theirs = load_file(tmp_path / DICTIONARY_LEARNING_FILE)
    assert theirs["k"].dtype == torch.int32 and theirs.pop("k") == 1
    assert {tensor.dtype for tensor in theirs.values()} == {torch.float32}
    state = torch.randn(200, 3, generator=torch.manual_seed(0)) * 2
    score = torch.relu((state - theirs["b_dec"]) @ theirs["encoder.weight"].T + theirs["encoder.bias"])
    score = score * (score > theirs["threshold"])
    latents = sae.encode(state)
    ours = to_dense(latents, 200, 3)
    assert torch.equal(score != 0, ours != 0) and 0 < int((ours != 0).sum()) < 600
    torch.testing.assert_close(score @ theirs["decoder.weight"].T + theirs["b_dec"], sae.decode(latents, 200))


@pytest.mark.parametrize("guess", [0.0, 1.0, 1000.0])
def test_the_threshold_lets_exactly_k_scores_per_calibration_token_through(guess: float) -> None:
    torch.manual_seed(1)
    weights = Weights(torch.randn(20, 6), torch.zeros(20), torch.randn(20, 6), torch.zeros(6))
    folded = fold(SaeConfig(preset="authors"), weights, torch.ones(6))
    states = [torch.randn(30, 6), torch.randn(11, 6)]
    threshold = quantile_threshold(folded, iter(states), 3, guess)
    scores = torch.cat(states) @ folded.W_enc_DF * folded.norm_F
    assert int((scores > threshold).sum()) == 3 * 41
    ordered = scores.flatten().sort(descending=True).values
    assert threshold == pytest.approx(float(ordered[122] + ordered[123]) / 2, rel=1e-6)


def test_the_threshold_is_zero_when_fewer_than_k_scores_are_positive() -> None:
    weights = Weights(torch.eye(4), torch.tensor([0.0, 0.0, -100, -100]), torch.eye(4), torch.zeros(4))
    folded = fold(SaeConfig(), weights, torch.ones(4))
    assert quantile_threshold(folded, [torch.rand(9, 4)], 3, 0.5) == 0.0


def test_errors_follow_their_definitions() -> None:
    rng = np.random.default_rng(0)
    state, rebuilt = rng.standard_normal((2, 50, 4)) + 1
    errors = Errors(torch.full((4,), 0.5))
    errors.add(torch.from_numpy(state[:20]), torch.from_numpy(rebuilt[:20]))
    errors.add(torch.from_numpy(state[20:]), torch.from_numpy(rebuilt[20:]))
    assert errors.fvu == pytest.approx(((state - rebuilt) ** 2).sum() / ((state - state.mean(0)) ** 2).sum())
    a, b = state - 0.5, rebuilt - 0.5
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert errors.cosine == pytest.approx(cosines.mean())


def test_a_mean_far_from_the_centre_takes_nothing_from_the_variance() -> None:
    """1001 and 999, rebuilt as 1000: float32 steps by 128 where squares of 1000 tokens are summed up."""
    state = 1000 + torch.tensor([[1.0], [-1.0]]).repeat(500, 1)
    errors = Errors(torch.zeros(1))
    for part in state.split(100):
        errors.add(part, torch.full_like(part, 1000.0))
    assert (float(errors.variance_E), errors.fvu) == (pytest.approx(1000), pytest.approx(1))


def test_a_perfect_dictionary_explains_everything() -> None:
    eye = torch.eye(3)
    sae = Sae(
        Path(),
        ("L0.q_proj", "L0.k_proj", "L0.v_proj"),
        1,
        0.0,
        eye,
        torch.zeros(3),
        eye,
        torch.zeros(3),
        torch.zeros(3),
    )
    state = torch.tensor([[1.0, 0, 0], [0, 2, 0], [3, 0, 1]])
    held = evaluate(sae, state.split(2), torch.arange(3), torch.tensor([False, False, True]), torch.zeros(3))
    assert held.summary.fvu == 0
    assert held.summary.l0 == pytest.approx(4 / 3)
    assert held.l0_counts.tolist() == [0, 2, 1]
    assert held.latents["density"].to_pylist() == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert held.latents["mean"].to_pylist() == [2, 2, 1]
    assert held.latents["max"].to_pylist() == [3, 2, 1]
    assert held.latents["component"].to_pylist() == ["L0.q_proj", "L0.k_proj", "L0.v_proj"]
    assert held.latents["dead"].to_pylist() == [False, False, True]


def test_the_cosine_is_around_the_centre_of_the_columns_that_entered() -> None:
    """Column 1 stays out. (2, 1) is rebuilt as (2, 0): around (1, 1) they are (1, 0) and (1, -1), 45 degrees apart."""
    W_enc_DF, b_dec_D = torch.tensor([[1.0], [0.0], [0.0]]), torch.zeros(3)
    columns = ("L0.q_proj", "L0.k_proj", "L0.v_proj")
    sae = Sae(Path(), columns, 1, 0.0, W_enc_DF, torch.zeros(1), W_enc_DF.T, b_dec_D, torch.zeros(1))
    entering, dead = torch.tensor([0, 2]), torch.tensor([False])
    held = evaluate(sae, [torch.tensor([[2.0, 50.0, 1.0]])], entering, dead, torch.ones(2))
    assert held.summary.cosine == pytest.approx(0.5**0.5)


def test_an_evaluation_tells_of_every_latent_and_component() -> None:
    """Of 20 tokens, latent 0 fires on all and the others on 2, 3, 0 and 1; column 2 never moves."""
    columns = ("L0.q_proj", "L0.k_proj", "L1.q_proj")
    W_enc_DF = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    W_dec_FD = torch.tensor([[1.0, 0, 0], [0, 0, 0.5], [0, 0, 3], [0, -2, 0], [0, 1, 0]])
    threshold_F = torch.tensor([0.0, 2.5, 1.5, 9.0, 3.5])
    sae = Sae(Path(), columns, 1, 1.0, W_enc_DF, torch.zeros(5), W_dec_FD, torch.zeros(3), threshold_F)
    state = torch.stack([20.0 - torch.arange(20), torch.zeros(20), torch.ones(20)], dim=1)
    state[:3, 1] = torch.tensor([4.0, 3.0, 2.0])
    held = evaluate(sae, state.split(7), torch.arange(3), torch.zeros(5, dtype=torch.bool), torch.zeros(3))
    summary = held.summary
    assert (summary.tokens, summary.silent_latents, summary.dense_latents, summary.l0) == (20, 1, 2, 1.3)
    assert (summary.l0_p05, summary.l0_p50, summary.l0_p95, held.l0_counts.tolist()) == (1, 1, 3, [0, 17, 1, 1, 1])
    assert held.latents["max"].to_pylist() == [20, 4, 4, 0, 4]
    # rows 1 and 2 are alike, 3 and 4 opposite
    assert held.latents["max_cosine"].to_pylist() == [0, 1, 1, 0, 0]
    assert summary.decoder_similarity == pytest.approx(0.4)
    assert held.latents["decoder_norm"].to_pylist() == [1, 0.5, 3, 2, 1]
    assert held.latents["threshold"].to_pylist() == [0, 2.5, 1.5, 9, 3.5]
    assert held.latents["component"].to_pylist() == ["L0.q_proj", "L1.q_proj", "L1.q_proj", "L0.k_proj", "L0.k_proj"]
    # of 4, 3 and 2 in column 1 the first alone is rebuilt: errors 3^2 + 2^2, variance 29 - 9^2 / 20
    np.testing.assert_allclose(held.explained_E, [1, 1 - 13 / 24.95, np.nan], rtol=1e-6)
    assert summary.explained_variance == 1 - summary.fvu


def test_explained_variance_is_told_of_each_projection_whose_components_move() -> None:
    columns = ("L0.q_proj", "L0.up_proj", "L1.q_proj", "L1.up_proj", "L0.v_proj")
    assert by_projection(columns, np.array([0.5, 0.25, 0.75, np.nan, np.nan])) == [
        {"projection": "q_proj", "mean": 0.625, "least": 0.5, "largest": 0.75},
        {"projection": "up_proj", "mean": 0.25, "least": 0.25, "largest": 0.25},
    ]


def test_decoder_similarity_leaves_out_the_row_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.sae.evaluate.SIMILAR_ROWS", 2)
    rows = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 5.0]])
    assert decoder_similarity(rows).tolist() == pytest.approx([0.5**0.5] * 3)


def test_quantile_of_counts_by_hand() -> None:
    counts = np.array([1, 0, 2, 1])
    assert [quantile_of_counts(counts, share) for share in (0.05, 0.25, 0.5, 0.75, 1)] == [0, 0, 2, 2, 3]
