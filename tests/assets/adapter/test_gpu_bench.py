"""The GPU benchmark runs on a CPU with its toy shape, and both ways it compares train the same thing."""

import re

import pytest

from bench.gpu_training import main


@pytest.mark.parametrize("recomputed", ["0", "1", "2"])
def test_the_toy_shape_runs_both_ways_to_the_same_losses(recomputed: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--shape", "toy", "--device", "cpu", "--tokens", "40", "--steps", "1", "--recomputed-layers", recomputed])
    ways = re.findall(r"\| (ours|recipe) \| (\d+) \|.*\| ([\d.]+), ([\d.]+) \|", capsys.readouterr().out)
    assert [way[0] for way in ways] == ["ours", "recipe"]
    assert all(int(way[1]) > 0 for way in ways)
    for ours, theirs in zip(ways[0][2:], ways[1][2:], strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=0.02)
