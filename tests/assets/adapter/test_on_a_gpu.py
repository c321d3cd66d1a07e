"""The adapter's training on a claimed GPU (tests/claimed_gpu.py) is that of a CPU."""

import pytest
import torch

from assets.adapter.config import LoraConfig
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
