"""Products by oneDNN are those of float64 to rounding, with torch's gradients, wherever a model uses them."""

import math
import runpy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from resources import onednn
from resources.onednn import FEWEST_ROWS, FLOP_FORMULA, OneDnnLinear, linear, use_onednn

ROWS, INPUTS, OUTPUTS = 2 * FEWEST_ROWS, 24, 40


@pytest.fixture(autouse=True)
def cpu_with_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN computes on every x86; which instructions it has is its own affair."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def goes_to_onednn(x: torch.Tensor, weight_OI: torch.Tensor) -> bool:
    """Unless told how, torch does not count the products of oneDNN."""
    with FlopCounterMode(display=False) as counter:
        linear(x, weight_OI)
    return counter.get_total_flops() == 0


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 300), min_size=0, max_size=2),
    inputs=st.integers(1, 50),
    outputs=st.integers(1, 50),
    has_bias=st.booleans(),
)
def test_a_product_is_that_of_float64(shape: list[int], inputs: int, outputs: int, has_bias: bool) -> None:
    x, weight_OI = drawn(*shape, inputs), drawn(outputs, inputs, seed=1)
    bias_O = drawn(outputs, seed=2) if has_bias else None
    expected = F.linear(x.double(), weight_OI.double(), None if bias_O is None else bias_O.double())
    found = linear(x, weight_OI, bias_O)
    assert found.shape == expected.shape and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("needed", ["x", "weight", "bias", "all"])
def test_gradients_are_those_of_float64(needed: str) -> None:
    given = {"x": drawn(2, ROWS, INPUTS), "weight": drawn(OUTPUTS, INPUTS, seed=1), "bias": drawn(OUTPUTS, seed=2)}
    slope = drawn(2, ROWS, OUTPUTS, seed=3)
    wanted = list(given) if needed == "all" else [needed]
    found: list[list[torch.Tensor]] = []
    for compute, dtype in ((linear, torch.float32), (F.linear, torch.float64)):
        leaves = {name: tensor.to(dtype).requires_grad_(name in wanted) for name, tensor in given.items()}
        out = compute(leaves["x"], leaves["weight"], leaves["bias"])
        found.append(list(torch.autograd.grad(out, [leaves[name] for name in wanted], slope.to(dtype))))
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", ["transposed", "columns of a wider matrix", "rows of a longer matrix"])
def test_a_matrix_may_lie_in_another_one(layout: str) -> None:
    weight_OI = {
        "transposed": drawn(INPUTS, OUTPUTS).T,
        "columns of a wider matrix": drawn(OUTPUTS, 2 * INPUTS)[:, 3 : 3 + INPUTS],
        "rows of a longer matrix": drawn(2 * OUTPUTS, INPUTS)[3 : 3 + OUTPUTS],
    }[layout]
    x = drawn(ROWS, 2 * INPUTS, seed=1)[:, 5 : 5 + INPUTS]
    assert goes_to_onednn(x, weight_OI)
    torch.testing.assert_close(linear(x, weight_OI).double(), x.double() @ weight_OI.double().T, rtol=1e-5, atol=1e-5)


def test_a_bias_may_be_every_second_number_or_one_number_for_all() -> None:
    x, weight_OI = drawn(ROWS, INPUTS), drawn(OUTPUTS, INPUTS, seed=1)
    for bias_O in (drawn(2 * OUTPUTS, seed=2)[::2], drawn(1, seed=2).expand(OUTPUTS)):
        torch.testing.assert_close(linear(x, weight_OI, bias_O), F.linear(x, weight_OI, bias_O))


def test_float32_products_of_many_rows_go_to_onednn_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight_OI = drawn(FEWEST_ROWS, INPUTS), drawn(OUTPUTS, INPUTS)
    assert goes_to_onednn(x, weight_OI)
    assert goes_to_onednn(x.view(4, FEWEST_ROWS // 4, INPUTS), weight_OI)
    assert not goes_to_onednn(x[1:], weight_OI)
    assert not goes_to_onednn(x, weight_OI[:1])
    assert not goes_to_onednn(x[:, :1], weight_OI[:, :1])
    assert not goes_to_onednn(x.double(), weight_OI.double())
    assert not goes_to_onednn(x.bfloat16(), weight_OI.bfloat16())
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not goes_to_onednn(x, weight_OI)


def test_a_torch_without_onednn_computes_by_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    module = runpy.run_path(onednn.__file__)
    x, weight_OI = drawn(ROWS, INPUTS), drawn(OUTPUTS, INPUTS)
    assert torch.equal(module["linear"](x, weight_OI), F.linear(x, weight_OI))


def test_autocast_chooses_the_precision_of_a_float32_layer() -> None:
    layer = OneDnnLinear(INPUTS, OUTPUTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(drawn(ROWS, INPUTS)).dtype == torch.bfloat16
    assert layer(drawn(ROWS, INPUTS)).dtype == torch.float32


@pytest.mark.parametrize("rows", [FEWEST_ROWS - 1, FEWEST_ROWS])
def test_a_product_has_two_operations_for_each_number_it_multiplies(rows: int) -> None:
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULA) as counter:
        linear(drawn(1, rows, INPUTS), drawn(OUTPUTS, INPUTS), drawn(OUTPUTS))
    assert counter.get_total_flops() == 2 * rows * INPUTS * OUTPUTS


def test_a_model_keeps_its_weights_and_names_and_only_plain_linear_layers_change() -> None:
    class Own(torch.nn.Linear):
        """Not plain: what its forward does is its own affair."""

    model = torch.nn.Sequential(torch.nn.Linear(INPUTS, OUTPUTS), torch.nn.GELU(), Own(OUTPUTS, 3))
    before = {name: id(weight) for name, weight in model.named_parameters()}
    x = drawn(ROWS, INPUTS)
    expected = model(x)
    use_onednn(model)
    assert [type(module) for module in model] == [OneDnnLinear, torch.nn.GELU, Own]
    assert {name: id(weight) for name, weight in model.named_parameters()} == before
    torch.testing.assert_close(model(x), expected)


def test_a_layer_of_a_model_is_computed_by_onednn() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(INPUTS, OUTPUTS))
    use_onednn(layer)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        layer(drawn(ROWS, INPUTS))
    assert counter.get_total_flops() == 0
    assert math.prod(layer(drawn(0, INPUTS)).shape) == 0
