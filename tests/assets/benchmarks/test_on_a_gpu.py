"""The `hf` back end on a claimed GPU (tests/claimed_gpu.py) writes what it writes on a CPU."""

from pathlib import Path

from assets.benchmarks.engine import Arm, Request
from assets.benchmarks.generate_hf import HfEngine
from resources.models import ModelConfig
from tests.assets.benchmarks.test_decode import PROMPTS
from tests.claimed_gpu import claimed_gpu


def test_answers_on_a_gpu_are_those_of_a_cpu(tiny_model: Path) -> None:
    model = ModelConfig(name=str(tiny_model), dtype="float32")
    arm = Arm("base", model.name, None, "base")
    requests = [Request(prompt, 20, ("<|im_end|>",), float(n % 2), n) for n, prompt in enumerate(PROMPTS)]
    here = dict(HfEngine(model, "cpu", batch_size=5).complete(arm, requests))
    with claimed_gpu():
        there = dict(HfEngine(model, "cuda:0", batch_size=5).complete(arm, requests))
    assert there == here
