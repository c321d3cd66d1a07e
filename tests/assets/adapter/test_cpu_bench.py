"""The CPU benchmark still drives the loop: its stand-ins for telemetry and checkpoints are what the loop expects."""

from functools import partial
from pathlib import Path

import pytest

from bench.training import prepare, run_ours
from resources.compute import ComputeConfig


@pytest.mark.slow
def test_our_way_counts_the_timed_steps_tokens_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    monkeypatch.setenv("BENCH_ROLLOUTS", str(tmp_path))
    # a checkpoint is due after the first step, as it is after the 25th of a longer run
    monkeypatch.setattr("resources.compute.ComputeConfig", partial(ComputeConfig, checkpoint_steps=1))
    found = run_ours("ours", 2)
    losses, tokens = found["losses"], found["tokens"]
    assert isinstance(losses, list) and isinstance(tokens, int)
    first, last = losses
    assert first > last > 0
    assert 16 * 50 < tokens < 16 * 500  # one timed step of 16 rollouts
