"""The GPU benchmark runs on a CPU with its toy shape, and the two ways it compares give the same KL."""

import re

import pytest

from bench.gpu_ablation import main


def test_the_toy_shape_runs_both_ways_to_the_same_kl(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--shape", "toy", "--rows", "2", "--stride", "16"])
    said = capsys.readouterr().out
    assert said.count("turn ") == 3
    apart = re.search(r"largest relative difference ([\d.e+-]+)", said)
    # bfloat16 has 8 bits, so that a KL of about 1e-2 nats agrees to some percent.
    assert apart is not None
    assert float(apart[1]) < 0.2
