"""KL over slices of the vocabulary equals the definition for any slice width, and holds no whole logits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assets.ablation import divergence
from assets.ablation.divergence import columns_per_slice, diverge, refer
from resources.intervals import ratio
from tests.largest_tensor import Largest


def test_a_two_word_vocabulary_by_hand() -> None:
    head = torch.eye(2)
    full, edited = torch.tensor([[0.0, 0.0]]), torch.tensor([[[0.0, math.log(3)]]])
    reference = refer(full, torch.tensor([1]), head)
    found = diverge(reference, edited, head)
    # p = (1/2, 1/2), q = (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln(2/3); CE of word 1 falls from ln 2 to ln(4/3).
    assert found.kl_NP.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-6)
    assert reference.ce_P.item() == pytest.approx(math.log(2), rel=1e-6)
    assert found.ce_NP.item() == pytest.approx(math.log(4 / 3), rel=1e-6)


@given(st.integers(0, 1000), st.integers(1, 70), st.floats(0.01, 30))
def test_any_slice_width_gives_the_definition(seed: int, columns: int, scale: float) -> None:
    """In float64: products of float32 round by their width, by 2e-5 where logits reach 250."""
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(67, 8, generator=generator).double()
    full = scale * torch.randn(5, 8, generator=generator).double()
    edited = full + 0.3 * torch.randn(3, 5, 8, generator=generator)
    target = torch.tensor([0, 66, 3, -1, 20])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(divergence, "columns_per_slice", lambda *_: columns)
        reference = refer(full, target, head)
        found = diverge(reference, edited, head)
    p, q = (torch.nn.functional.linear(h, head).log_softmax(-1) for h in (full, edited))
    torch.testing.assert_close(found.kl_NP, (p.exp() * (p - q)).sum(-1), rtol=1e-9, atol=1e-9)
    wanted = -q.gather(-1, target.clamp(min=0).expand(3, 5)[..., None])[..., 0] * (target >= 0)
    torch.testing.assert_close(found.ce_NP, wanted, rtol=1e-9, atol=1e-9)


@given(st.integers(1, 2**20))
def test_slices_on_a_gpu_begin_at_multiples_of_128_and_hold_no_more_logits_than_allowed(num_tokens: int) -> None:
    columns = columns_per_slice(num_tokens, torch.device("cuda"))
    assert columns >= 128
    assert columns % 128 == 0
    assert columns == 128 or columns * num_tokens <= divergence.ELEMENTS["cuda"]


def test_no_tensor_of_tokens_times_vocabulary_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(divergence.ELEMENTS, "cpu", 6 * 50 * 32)
    head, full = torch.randn(4096, 8), torch.randn(50, 8)
    with Largest() as largest:
        diverge(refer(full, torch.arange(50), head), torch.randn(6, 50, 8), head)
    # 6 rows x 50 tokens x 32 columns, or the full run's 50 tokens x 192 columns; 50 x 4096 would be whole logits.
    assert largest.numel == 6 * 50 * 32 == 50 * 192


def test_the_ratio_and_its_standard_error_by_hand() -> None:
    # 2/4 and 8/4: mean 10/8; residuals 2 - 5 and 8 - 5; sqrt(2/1 * 18) / 8 = 0.75 = std(0.5, 2) / sqrt(2).
    assert ratio([2, 8], [4, 4]) == (1.25, pytest.approx(0.75))
    assert ratio([3], [4]) == (0.75, None)
