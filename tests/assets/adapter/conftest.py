"""A small training that every test of the room can run: twelve rollouts of unequal length on the tiny model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.adapter.config import FullFinetuneConfig, LoraConfig
from assets.adapter.train import TrainingMetrics, train_full, train_lora
from assets.dataset.config import DatasetConfig
from assets.dataset.prepare import prepare
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress

COMPUTE = ComputeConfig(profile="cpu", processes=1, recomputed_layers=0, tokens_per_batch=4096)


@dataclass(frozen=True)
class World:
    """A model and rollouts to train on; `lora` and `full` train into a fresh folder below `folder`."""

    model: ModelConfig
    dataset: Path
    folder: Path
    lines: list[str] = field(default_factory=list)

    def lora(self, name: str, config: LoraConfig, compute: ComputeConfig = COMPUTE) -> tuple[Path, TrainingMetrics]:
        return self._trained(name, partial(train_lora, lora=config), compute)

    def full(
        self, name: str, config: FullFinetuneConfig, compute: ComputeConfig = COMPUTE
    ) -> tuple[Path, TrainingMetrics]:
        return self._trained(name, partial(train_full, full_finetune=config), compute)

    def _trained(
        self, name: str, train: Callable[..., TrainingMetrics], compute: ComputeConfig
    ) -> tuple[Path, TrainingMetrics]:
        out, scratch = self.folders(name)
        progress = Progress(self.lines.append, 0)
        metrics = train(
            model=self.model, s1k_dataset=self.dataset, out=out, scratch=scratch, progress=progress, compute=compute
        )
        return out, metrics

    def folders(self, name: str) -> tuple[Path, Path]:
        out, scratch = self.folder / name, self.folder / f"{name}-scratch"
        out.mkdir()
        scratch.mkdir(exist_ok=True)
        return out, scratch


@pytest.fixture(scope="session")
def rollouts(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `s1k_dataset` artifact of twelve rollouts of 70 to 150 tokens."""
    rows = range(12)
    source, out = tmp_path_factory.mktemp("rows"), tmp_path_factory.mktemp("s1k_dataset")
    table = {
        "question": [f"{i} + {i * 7 % 5}?" for i in rows],
        "solution": ["" for _ in rows],
        "deepseek_thinking_trajectory": ["Wait, so " * (1 + i * 5 % 7) + f"{i}" for i in rows],
        "deepseek_attempt": [f"{i + i * 7 % 5}" for i in rows],
    }
    pq.write_table(pa.table(table), source / "train.parquet")
    prepare(
        model=ModelConfig(name=str(tiny_model), dtype="float32"),
        dataset=DatasetConfig(source=str(source)),
        out=out,
        progress=Progress(lambda _: None),
    )
    return out


@pytest.fixture
def world(tiny_model: Path, rollouts: Path, tmp_path: Path) -> World:
    return World(ModelConfig(name=str(tiny_model), dtype="float32"), rollouts, tmp_path)
