"""A small dataset, and one call of each capture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assets.activations.capture import CaptureMetrics, capture_neurons, capture_states
from assets.activations.config import ActivationsConfig, NeuronsConfig
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress
from tests.shard_builders import build_dataset

LENGTHS = {2: 17, 3: 40, 5: 8, 6: 33, 9: 25, 11: 40, 12: 5}
"""Rollout id -> tokens; ids are not contiguous, as after skipped rows."""

Capture = Callable[..., CaptureMetrics]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    tokens = {rollout: rng.integers(0, 256, length) for rollout, length in LENGTHS.items()}
    return build_dataset(tmp_path_factory.mktemp("dataset"), tokens)


@pytest.fixture
def states(tiny_model: Path, tiny_adapter: Path, dataset: Path) -> Capture:
    """`capture_states` into `folder/out` with `folder/scratch`, saying into `lines`."""

    def call(
        folder: Path,
        lines: list[str] | None = None,
        adapter: Path = tiny_adapter,
        tokens_per_batch: int = 64,
        **knobs: object,
    ) -> CaptureMetrics:
        (folder / "out").mkdir(parents=True, exist_ok=True)
        (folder / "scratch").mkdir(exist_ok=True)
        return capture_states(
            model=ModelConfig(name=str(tiny_model), dtype="float32"),
            activations=ActivationsConfig.model_validate({"shard_rows": 64, "row_group_rows": 16, **knobs}),
            s1k_dataset=dataset,
            lora_checkpoint=adapter,
            out=folder / "out",
            scratch=folder / "scratch",
            progress=Progress([].append if lines is None else lines.append, interval_s=0),
            compute=ComputeConfig(profile="cpu", tokens_per_batch=tokens_per_batch),
        )

    return call


@pytest.fixture
def neurons(tiny_model: Path, dataset: Path) -> Capture:
    """`capture_neurons` into `folder/out`."""

    def call(folder: Path, **knobs: object) -> CaptureMetrics:
        (folder / "out").mkdir(parents=True)
        (folder / "scratch").mkdir()
        return capture_neurons(
            model=ModelConfig(name=str(tiny_model), dtype="float32"),
            neurons=NeuronsConfig.model_validate({"per_layer": 5, "shard_rows": 64, "row_group_rows": 16, **knobs}),
            s1k_dataset=dataset,
            out=folder / "out",
            scratch=folder / "scratch",
            progress=Progress(lambda _: None),
            compute=ComputeConfig(profile="cpu", tokens_per_batch=64),
        )

    return call
