"""The GPU benchmark runs on a CPU with its toy shape, and both ways it compares train the same thing."""

import gc
import re
import weakref
from collections.abc import Callable

import pytest
import torch

from assets.adapter.flops import Work
from bench import gpu_training
from bench.gpu_training import main, measure, release

TOY = ["--shape", "toy", "--device", "cpu", "--tokens", "40", "--steps", "1"]


def test_the_toy_shape_runs_both_ways_to_the_same_losses(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TOY, "--recomputed-layers", "0,1,2"])
    ways = re.findall(r"\| (\w+) \| (\d) \| (\d+) \|.*\| ([\d.]+), ([\d.]+) \|", capsys.readouterr().out)
    assert [way[:2] for way in ways] == [("ours", "0"), ("ours", "1"), ("ours", "2"), ("recipe", "2")]
    assert all(int(way[2]) > 0 for way in ways)
    for ours in ways[:3]:
        assert [float(loss) for loss in ours[3:]] == pytest.approx([float(loss) for loss in ways[3][3:]], abs=0.02)


def test_a_profile_names_the_operations_that_took_longest(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TOY, "--profile"])
    assert "aten::mm" in capsys.readouterr().out


def test_a_way_that_does_not_fit_says_so_and_the_next_one_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu_training, "wear_adapter", full)
    main(TOY)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("| ours | 2 | does not fit |")
    assert re.match(r"\| recipe \| 2 \| \d+ \|", lines[-1])


def test_the_last_ways_weights_are_given_back_before_the_next_ones_are_made() -> None:
    """Two of the 32B's models do not fit on one GPU, and a model that wears our adapter refers to itself."""
    device = torch.device("cpu")
    made: list[weakref.ref] = []

    def self_referring() -> Callable[[], float]:
        assert all(model() is None for model in made)
        model = torch.nn.Linear(1, 1)
        model.forward = lambda: model  # pyright: ignore[reportAttributeAccessIssue]
        made.append(weakref.ref(model))
        return lambda: float(model.weight.sum().item())

    gc.disable()
    try:
        measure(self_referring, 1, device, profiled=False)
        measure(self_referring, 1, device, profiled=False)
    finally:
        gc.enable()
    release(device)
    assert all(model() is None for model in made)


def test_the_account_of_the_32b_at_12_000_tokens_leaves_room_on_an_h200() -> None:
    """141 GB; all 64 layers recomputed, then 24 of them kept whole."""
    assert 70 < gpu_training.expected_gb("32b", 12_000, 64) < 85
    assert gpu_training.expected_gb("32b", 12_000, 40) < 0.95 * 141


def test_a_layer_computed_again_leaves_out_the_product_that_nothing_needs() -> None:
    """One rollout of 10 tokens, 3 of 4 layers of 100 weights each: 2 x 100 x 10 x 3, less 2 x 30 x 10 x 3."""
    work = Work(per_token=4 * 400, per_predicted=0, per_squared_length=0)
    assert gpu_training.recomputed(work, [10], 3, 4, skipped=0) == 6000
    assert gpu_training.recomputed(work, [10], 3, 4, skipped=30) == 6000 - 1800
