"""Pretraining: batches and rates by hand, the optimizer against a reference, two runs the same."""

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from resources.mini_world import pretrain
from resources.mini_world.documents import Segment
from resources.mini_world.muon import Muon, orthogonalised
from resources.mini_world.pretrain import Recipe, Rows, Stage, draw_batch, encode, model_config, rate_share, summed_loss
from resources.mini_world.tokenizer import build_tokenizer

SMALL = Recipe(documents=4, groups=2)
TOKENIZER = build_tokenizer()


def build_model(seed: int = 0) -> pretrain.Qwen2ForCausalLM:
    torch.manual_seed(seed)
    return pretrain.Qwen2ForCausalLM(model_config(TOKENIZER)).eval()


def test_every_token_of_a_segment_has_its_weight() -> None:
    ids, weights = encode(TOKENIZER, [Segment("Start=4.\n", 0.1), Segment("First", 1.0)])
    assert TOKENIZER.decode(ids) == "Start=4.\nFirst"
    assert weights == [0.1, 0.1, 0.1, 0.1, 1.0]


def test_a_batch_holds_all_documents_padded_with_weight_nought() -> None:
    batch = draw_batch(random.Random(0), TOKENIZER, SMALL, {"chat": 0.5, "drill": 0.5})
    assert [len(rows.ids) for rows in batch] == [2, 2]
    padding = TOKENIZER.convert_tokens_to_ids("<|fim_pad|>")
    for rows in batch:
        assert rows.ids.shape == rows.weights.shape
        assert float(rows.weights[rows.ids == padding].sum()) == 0
    assert batch[0].ids.shape[1] <= batch[1].ids.shape[1]


def test_the_loss_counts_only_weighted_tokens() -> None:
    model, ids = build_model(), torch.tensor([[5, 6, 7]])
    both, first, second = (Rows(ids, torch.tensor([weights])) for weights in ([0, 1, 2.0], [0, 1, 0.0], [0, 0, 1.0]))
    with torch.no_grad():
        losses = [float(summed_loss(model, rows)) for rows in (both, first, second)]
    assert losses[0] == pytest.approx(losses[1] + 2 * losses[2], rel=1e-5)


def test_the_rate_warms_up_and_falls_linearly() -> None:
    stage = Stage(steps=100, warmup_steps=10, last_rate=0.0, mixture={"chat": 1.0})
    # step 4: half warm, 4 % fallen; step 50: warm, half fallen
    assert rate_share(4, stage) == pytest.approx(0.5 * 0.96)
    assert rate_share(50, stage) == pytest.approx(0.5)
    assert rate_share(50, replace(stage, last_rate=1.0)) == 1.0


def test_orthogonalised_updates_have_singular_values_near_one_in_both_shapes() -> None:
    torch.manual_seed(0)
    for shape in ((2, 8, 24), (2, 24, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        # Muon's coefficients trade exactness for speed: values land between 0.68 and 1.13.
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.2


def test_a_muon_update_has_a_root_mean_square_of_a_fifth_of_the_rate() -> None:
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.randn(64, 192))
    before = matrix.detach().clone()
    matrix.grad = torch.randn(64, 192)
    Muon([matrix], weight_decay=0.0).step(0.1)
    moved = float((matrix.detach() - before).pow(2).mean().sqrt())
    assert moved == pytest.approx(0.02, rel=0.2)


def test_two_runs_of_a_stage_give_the_same_model() -> None:
    stage = Stage(steps=2, warmup_steps=1, last_rate=1.0, mixture={"forum": 0.5, "repeated_run": 0.5})
    models = [build_model(), build_model()]
    for model in models:
        pretrain.run_stage(model, stage, SMALL, TOKENIZER, random.Random(0), 1, log=False)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], build_model().state_dict()["lm_head.weight"])
