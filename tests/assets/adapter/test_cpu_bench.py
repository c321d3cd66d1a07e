"""The CPU benchmark still drives the loop: its stand-ins for telemetry and checkpoints are what the loop expects."""

from pathlib import Path

import pytest

from bench.training import prepare, run_ours


@pytest.mark.parametrize("way", ["ours", "ours-unpacked"])
def test_our_ways_count_the_timed_steps_tokens_and_learn(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    monkeypatch.setenv("BENCH_ROLLOUTS", str(tmp_path))
    found = run_ours(way, 3)
    losses = found["losses"]
    assert isinstance(losses, list)
    assert losses[0] > losses[-1] > 0
    assert len(losses) == 3
    assert 32 * 50 < found["tokens"] < 32 * 500  # two timed steps of 16 rollouts
