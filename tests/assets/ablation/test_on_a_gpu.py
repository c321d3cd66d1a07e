"""The three stages of this room on a claimed GPU (tests/claimed_gpu.py) find what they find on a CPU."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from assets.ablation.artifact import AblationKl, LatentKl, SteeringEffects
from assets.ablation.config import AblationConfig
from tests.assets.ablation import test_ablate, test_latents, test_steer
from tests.assets.ablation.world import World
from tests.claimed_gpu import claimed_gpu

CONFIG = AblationConfig(max_tokens=20, replacement="mean", greedy_steps=1)
Stage = Callable[[World, Path], pa.Table]


def components(world: World, folder: Path) -> pa.Table:
    test_ablate.run(world, folder, CONFIG)
    return AblationKl.open(folder / "out").table()


def latents(world: World, folder: Path) -> pa.Table:
    test_latents.run(world, folder, CONFIG, 3)
    return LatentKl.open(folder / "out").table()


def doses(world: World, folder: Path) -> pa.Table:
    test_steer.run(world, folder, test_steer.CONFIG)
    return SteeringEffects.open(folder / "out").table()


def compare(stage: Stage, world: World, folder: Path, relative: float, absolute: float) -> None:
    here = stage(world, folder / "cpu").to_pylist()
    with claimed_gpu():
        there = stage(world, folder / "gpu").to_pylist()
    assert len(here) == len(there)
    for ours, theirs in zip(there, here, strict=True):
        for name, value in theirs.items():
            found = pytest.approx(value, rel=relative, abs=absolute) if isinstance(value, float) else value
            assert ours[name] == found, (name, ours)


@pytest.mark.parametrize("stage", [components, latents, doses])
def test_a_stage_on_a_gpu_finds_what_it_finds_on_a_cpu(stage: Stage, world: World, tmp_path: Path) -> None:
    compare(stage, world, tmp_path, 1e-5, 1e-9)


@pytest.mark.parametrize("stage", [components, latents])
def test_bfloat16_parts_on_a_gpu_find_what_float32_copies_find_on_a_cpu(
    stage: Stage, world: World, tmp_path: Path
) -> None:
    """To 2%: a sum amid two bfloat16 numbers may be rounded to either."""
    narrow = World(world.folder, world.model_folder, world.adapter, "bfloat16")
    compare(stage, narrow, tmp_path, 0.02, 5e-3)
