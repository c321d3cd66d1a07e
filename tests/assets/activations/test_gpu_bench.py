"""The GPU benchmark runs on a CPU with its toy shape, for the adapter's scalars and for neurons."""

import re

import pytest

from bench.gpu_capture import main


def test_the_toy_shape_captures_components_and_neurons(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--shape", "toy", "--device", "cpu", "--tokens", "400", "--tokens-per-batch", "200", "--turns", "1"])
    found = re.findall(r"(adapter|neurons): (\d+) columns, \d+ tokens/s, [\d.]+ of bare", capsys.readouterr().out)
    assert found == [("adapter", str(7 * 2)), ("neurons", str(60 * 2))]


def test_shards_may_be_smaller_than_their_first_rollout_and_neurons_measured_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy = ["--shape", "toy", "--device", "cpu", "--tokens", "200", "--tokens-per-batch", "100", "--turns", "1"]
    main([*toy, "--shard-rows", "4", "--what", "neurons"])
    assert re.findall(r"(adapter|neurons): ", capsys.readouterr().out) == ["neurons"]
