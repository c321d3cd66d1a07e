"""The chunked cross-entropy against the full one, and the FLOP count against a count by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config

from assets.adapter import loss as loss_module
from assets.adapter.config import LoraConfig
from assets.adapter.flops import peak_flops, training_work
from assets.adapter.loop import clip
from assets.adapter.loss import summed_cross_entropy
from resources.onednn import FLOP_FORMULA
from tests.largest_tensor import Largest


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_chunks_give_the_full_loss_and_both_gradients(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 11 * rows)
    torch.manual_seed(0)
    hidden, head = torch.randn(7, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    target = torch.randint(0, 11, (7,))
    expected = F.cross_entropy(hidden @ head.T, target, reduction="sum")
    found = summed_cross_entropy(hidden, head, target)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found * 0.25, (hidden, head)),
        torch.autograd.grad(expected * 0.25, (hidden, head)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("trained", ["hidden", "head"])
def test_what_is_frozen_gets_no_gradient_and_the_other_the_full_one(trained: str) -> None:
    values = {"hidden": torch.randn(4, 5), "head": torch.randn(11, 5)}
    values[trained].requires_grad_()
    target = torch.tensor([1, 2, 3, 4])
    (expected,) = torch.autograd.grad(
        F.cross_entropy(values["hidden"] @ values["head"].T, target, reduction="sum"), values[trained]
    )
    loss = summed_cross_entropy(values["hidden"], values["head"], target)
    kept = loss.grad_fn.saved_tensors  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    # of a frozen head none is made: it would be 3 GB at 32B
    assert [grad is not None for grad in kept] == [name == trained for name in values]
    loss.backward()
    for name, value in values.items():
        if name == trained:
            torch.testing.assert_close(value.grad, expected)
        else:
            assert value.grad is None


def test_sums_over_bfloat16_tokens_are_made_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 2)  # a token at a time
    hidden, head = torch.ones(1000, 1, dtype=torch.bfloat16), torch.zeros(2, 1, dtype=torch.bfloat16)
    loss = summed_cross_entropy(hidden, head.requires_grad_(), torch.zeros(1000, dtype=torch.long))
    assert loss.item() == pytest.approx(1000 * math.log(2), rel=1e-5)  # in bfloat16, 256 + ln 2 is 256
    loss.backward()
    assert head.grad is not None and head.grad.dtype == torch.bfloat16
    assert head.grad.flatten().tolist() == [-500, 500]  # a half of each token; in bfloat16, 128.5 is 128


def test_no_more_logits_than_those_of_a_chunk_are_ever_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 4 * 64)
    with Largest() as largest:
        summed_cross_entropy(torch.randn(32, 2), torch.randn(64, 2), torch.arange(32))
    assert largest.numel == 4 * 64  # of 32 x 64


def test_no_tokens_give_no_loss() -> None:
    hidden, head = torch.randn(4, 5, requires_grad=True), torch.randn(11, 5)
    nothing = summed_cross_entropy(hidden[:0], head, torch.zeros(0, dtype=torch.long))
    assert nothing.item() == 0
    nothing.backward()


@pytest.mark.parametrize(("limit", "left"), [(0.0, [3.0, 4.0]), (10.0, [3.0, 4.0]), (2.5, [1.5, 2.0])])
def test_gradients_are_scaled_down_to_the_norm_that_is_asked_for_and_for_0_never(
    limit: float, left: list[float]
) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    run = SimpleNamespace(training=LoraConfig(max_grad_norm=limit), parameters={"weight": weight})
    assert clip(run) == 5.0  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(weight.grad, torch.tensor(left), rtol=1e-5, atol=0)


def test_the_work_of_the_32b_model_is_four_flop_per_weight_and_token_plus_attention() -> None:
    """Weights in layers: 64 x (2 x 5120 x 5120 + 2 x 5120 x 1024 + 3 x 5120 x 27648) = 31.2 B."""
    architecture = Qwen2Config(
        hidden_size=5120,
        intermediate_size=27648,
        num_hidden_layers=64,
        num_attention_heads=40,
        num_key_value_heads=8,
        vocab_size=152064,
    )
    weights = 64 * (2 * 5120 * 5120 + 2 * 5120 * 1024 + 3 * 5120 * 27648)
    lora = training_work(architecture, trains_weights=False)
    assert lora.per_token == 4 * weights
    assert lora.per_predicted == 4 * 5120 * 152064
    # 10,000 tokens: 6 x 64 x 5120 x 1e8 = 1.97e14 beside 1.25e15, attention's share is 13.6 %
    attention = lora.of([10_000], 0) - 10_000 * lora.per_token
    assert attention == pytest.approx(1.966e14, rel=1e-3)
    full = training_work(architecture, trains_weights=True)
    assert full.per_token == 6 * weights
    assert full.of([10_000], 0) - 10_000 * full.per_token == pytest.approx(attention)
    assert lora.of([3, 4], 5) == 7 * lora.per_token + 5 * lora.per_predicted + 25 * lora.per_squared_length


def test_an_unknown_device_is_measured_by_the_products_that_a_training_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULA) as all_products:
        assert 1e8 < peak_flops(torch.device("cpu"), torch.float32) < 1e14
    with FlopCounterMode(display=False) as by_torch:
        peak_flops(torch.device("cpu"), torch.float32)
    assert all_products.get_total_flops() == 5 * 2 * 512**3 and by_torch.get_total_flops() == 0
