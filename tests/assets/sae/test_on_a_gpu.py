"""The SAE's and its baselines' training on a claimed GPU (tests/claimed_gpu.py) is that of a CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from assets.sae import stepping
from assets.sae.artifact import WEIGHTS_FILE
from assets.sae.config import SaeConfig
from tests.assets.sae.conftest import SMALL, run_train
from tests.claimed_gpu import Recording, claimed_gpu


def _as_recorded(take: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A step as a CUDA graph, which exists on GPUs alone, would record it."""

    def step(given: Any) -> Any:
        with Recording():
            return take(given)

    return step


@pytest.mark.parametrize("preset", ["default", "authors"])
def test_a_training_on_a_gpu_gives_the_dictionary_of_a_cpu(
    preset: str, sparse_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepping, "recorded", _as_recorded)
    baselines = ("topk", "jumprelu", "pca", "random")
    knobs = {"preset": preset, "epochs": 2, "baselines": baselines, "dead_after_tokens": 400}
    config = SaeConfig(**{**SMALL.model_dump(exclude_unset=True), **knobs})
    here = run_train(config, sparse_shards, tmp_path / "cpu")
    with claimed_gpu():
        there = run_train(config, sparse_shards, tmp_path / "gpu")
    assert there.held_out.fvu == pytest.approx(here.held_out.fvu, rel=1e-3)
    assert there.threshold == pytest.approx(here.threshold, rel=1e-3)
    for ours, theirs in zip(there.baselines, here.baselines, strict=True):
        assert ours["fvu"] == pytest.approx(theirs["fvu"], rel=1e-3), ours["dictionary"]
    assert any(point["dead"] for point in here.loss_curve)
    ours, theirs = (load_file(tmp_path / place / "out" / WEIGHTS_FILE) for place in ("gpu", "cpu"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-2, atol=1e-3)
