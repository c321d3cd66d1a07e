"""States with known sparse structure, as shards, and one SAE trained on them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from assets.sae.candidates import int8_saturates
from assets.sae.config import SaeConfig
from assets.sae.train import SaeMetrics, train
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress
from tests.shard_builders import build_shards

Preset = Literal["default", "authors"]
SILENT = Progress(lambda _: None)
SMALL = SaeConfig(
    k=3,
    expansion=4,
    batch_tokens=256,
    epochs=6,
    learning_rate=5e-3,
    warmup_steps=20,
    dead_after_tokens=4000,
    auxiliary_k=7,
    held_out_fraction=0.2,
    shuffle_tokens=3000,
    baselines=(),
    effect_rollouts=0,
)
COMPONENTS, FEATURES = 14, 30


def sparse_states(rollouts: int, tokens: int, seed: int = 0) -> dict[int, np.ndarray]:
    """Each state is the sum of about three of 30 fixed directions, plus a mean and a little noise."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((FEATURES, COMPONENTS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    mean = rng.standard_normal(COMPONENTS)
    states: dict[int, np.ndarray] = {}
    for r in range(rollouts):
        active = rng.random((tokens, FEATURES)) < 0.1
        sizes = active * (2 + rng.random((tokens, FEATURES)))
        states[r * 3] = sizes @ directions + mean + 0.02 * rng.standard_normal((tokens, COMPONENTS))
    return states


def run_train(config: SaeConfig, shards: Path, folder: Path, progress: Progress = SILENT) -> SaeMetrics:
    """Train without the model's part: `folder/out`, `folder/scratch`."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    (folder / "scratch").mkdir(exist_ok=True)
    return train(
        model=ModelConfig(),
        sae=config,
        activation_shards=shards,
        s1k_dataset=folder,
        lora_checkpoint=folder,
        out=folder / "out",
        scratch=folder / "scratch",
        progress=progress,
        compute=ComputeConfig(profile="cpu"),
    )


@pytest.fixture(scope="session", autouse=True)
def _exact_int8() -> Iterator[None]:
    """Without VNNI products of float64 stand for int8's, so that the filter's own arithmetic is tested everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        if int8_saturates():
            patch.setattr("assets.sae.candidates.int8_product", lambda a, b, out: out.copy_(a.double() @ b.double()))
        yield


@pytest.fixture(scope="session")
def sparse_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rollouts of 200 tokens, 14 components."""
    return build_shards(tmp_path_factory.mktemp("sae") / "shards", sparse_states(60, 200), row_group_rows=700)


@pytest.fixture(scope="session")
def trained(sparse_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SaeMetrics, Path]:
    """Metrics and folder of the default recipe trained on `sparse_shards`."""
    folder = tmp_path_factory.mktemp("trained")
    config = SMALL.model_copy(update={"baselines": ("topk", "jumprelu", "pca", "random")})
    return run_train(config, sparse_shards, folder), folder / "out"
