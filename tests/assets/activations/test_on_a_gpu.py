"""Both captures on a claimed GPU (tests/claimed_gpu.py) write what they write on a CPU."""

from pathlib import Path

import numpy as np
import pytest

from resources.shards import Shards
from tests.assets.activations.conftest import Capture
from tests.claimed_gpu import claimed_gpu


@pytest.mark.parametrize("room", ["states", "neurons"])
def test_capture_on_a_gpu_writes_the_same_scalars(room: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    capture: Capture = request.getfixturevalue(room)
    capture(tmp_path / "cpu")
    with claimed_gpu():
        capture(tmp_path / "gpu")
    here, there = (Shards.open(tmp_path / place / "out") for place in ("cpu", "gpu"))
    assert here.columns == there.columns
    for ours, theirs in zip(there.batches(1000), here.batches(1000), strict=True):
        np.testing.assert_array_equal(ours.state_BC, theirs.state_BC)
