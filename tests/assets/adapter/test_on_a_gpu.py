"""The adapter's training on a claimed GPU (tests/claimed_gpu.py) is that of a CPU, with the kernels and without them.

The kernels of triton and liger-kernel are interpreted (tests/conftest.py).
"""

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from assets.adapter import lora_blocks, loss, train
from assets.adapter.config import LoraConfig
from assets.adapter.examples import Pass
from assets.adapter.lora_model import wear_adapter
from assets.adapter.loss import summed_cross_entropy
from assets.adapter.objective import RolloutLoss
from resources.adapters import Adapter
from resources.packing import pack
from tests.assets.adapter.conftest import World
from tests.claimed_gpu import GPU, claim, claimed_gpu


def test_an_adapter_trained_on_a_gpu_without_kernels_is_the_one_trained_on_a_cpu(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lora_blocks, loss):
        monkeypatch.setattr(module, "is_usable", lambda _: False)
    monkeypatch.setattr(train, "missing_for_kernels", lambda: "there is no C compiler")
    config = LoraConfig(epochs=1)
    here, found_here = world.lora("cpu", config)
    with claimed_gpu():
        there, found_there = world.lora("gpu", config)
    assert [line for line in world.lines if "slower" in line] == [
        "there is no C compiler: torch's own kernels train a tenth slower"
    ]
    assert found_there.final_loss == pytest.approx(found_here.final_loss, rel=1e-5)
    ours, theirs = Adapter.open(there), Adapter.open(here)
    for component in theirs.components:
        torch.testing.assert_close(ours.B[component], theirs.B[component], rtol=1e-3, atol=1e-6)


def objective(device: torch.device) -> RolloutLoss:
    """The loss of a random model of two layers with a rank-1 adapter that does something."""
    config = Qwen2Config(
        hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = wear_adapter(Qwen2ForCausalLM(config).requires_grad_(False), LoraConfig(), "random")
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return RolloutLoss(model, device, recomputed_layers=0, autocast=None)


def test_a_pass_through_every_kernel_has_the_loss_and_gradients_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is made for Linux alone")
    ids = np.random.default_rng(0).integers(0, 32, 12)
    one = Pass(pack([ids[:7], ids[7:]]), np.array([1, 4, 5, 7, 10]), ids[[2, 5, 6, 8, 11]])
    here = objective(torch.device("cpu"))
    expected = here(one)
    expected.backward()
    used = set[str]()
    for module in (lora_blocks, loss):
        monkeypatch.setattr(module, "is_usable", lambda package: used.add(package) or True)
    there = objective(GPU)
    with claimed_gpu():
        claim(there)
        found = there(one)
        found.backward()
        gradients = {name: weight.grad.cpu() for name, weight in there.named_parameters() if weight.grad is not None}
    assert used == {"triton", "liger_kernel"}
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert gradients.keys() == {name for name, weight in here.named_parameters() if weight.requires_grad}
    for name, weight in here.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-5)


def test_liger_kernels_loss_is_ours_and_of_no_token_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is made for Linux alone")
    monkeypatch.setattr(loss, "is_usable", lambda _: True)
    hidden, head, target = torch.randn(4, 3), torch.randn(5, 3), torch.tensor([0, 1, 4, 2])
    ours = summed_cross_entropy(hidden, head, target)
    with claimed_gpu():
        there = hidden.to("cuda"), head.to("cuda"), target.to("cuda")
        assert summed_cross_entropy(*there).item() == pytest.approx(ours.item(), rel=1e-5)
        assert summed_cross_entropy(there[0][:0], there[1], there[2][:0]).item() == 0  # its kernels need a token
