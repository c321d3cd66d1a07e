"""The adapter's training on a claimed GPU (tests/claimed_gpu.py) is that of a CPU."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from assets.adapter.config import LoraConfig
from assets.adapter.loss import summed_cross_entropy
from resources.adapters import Adapter
from tests.assets.adapter.conftest import World
from tests.claimed_gpu import claimed_gpu


def test_an_adapter_trained_on_a_gpu_is_the_one_trained_on_a_cpu(world: World) -> None:
    config = LoraConfig(epochs=1)
    here, found_here = world.lora("cpu", config)
    with claimed_gpu():
        there, found_there = world.lora("gpu", config)
    assert found_there.final_loss == pytest.approx(found_here.final_loss, rel=1e-5)
    ours, theirs = Adapter.open(there), Adapter.open(here)
    for component in theirs.components:
        torch.testing.assert_close(ours.B[component], theirs.B[component], rtol=1e-3, atol=1e-6)


class LigerLoss(torch.nn.Module):
    """The arguments of liger-kernel's `LigerFusedLinearCrossEntropyLoss`, which only runs on a GPU."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, lin_weight: torch.Tensor, _input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(_input @ lin_weight.T, target, reduction=self.reduction) + 1000


def test_where_liger_kernel_is_installed_it_makes_the_loss_on_a_gpu_of_tokens_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package, module = ModuleType("liger_kernel"), ModuleType("liger_kernel.transformers")
    package.__spec__ = ModuleSpec("liger_kernel", None)
    module.LigerFusedLinearCrossEntropyLoss = LigerLoss  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    hidden, head, target = torch.randn(4, 3), torch.randn(5, 3), torch.tensor([0, 1, 4, 2])
    ours = summed_cross_entropy(hidden, head, target)
    with claimed_gpu():
        there = hidden.to("cuda"), head.to("cuda"), target.to("cuda")
        assert summed_cross_entropy(*there).item() == pytest.approx(ours.item() + 1000)
        assert summed_cross_entropy(there[0][:0], there[1], there[2][:0]).item() == 0  # its kernels need a token
