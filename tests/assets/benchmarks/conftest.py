"""A small project folder with the three mini benchmarks, arms for the tiny model, and one call that scores them."""

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import resources.sources
from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.score import BenchmarkMetrics, score
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress
from tests.builders import build_tiny_qwen2

QUESTIONS = 10


@dataclass
class World:
    """Everything a score call needs, in a temporary folder."""

    root: Path
    model: ModelConfig
    lora: Path
    full: Path
    said: list[str] = field(default_factory=list)

    def config(self, **changes: object) -> BenchmarksConfig:
        settings = {
            "tasks": ("mini_hard", "mini_medium", "mini_choice"),
            "backend": "hf",
            "max_gen_toks": 12,
            "context": 512,
            "shard_size": 4,
            "batch_size": 4,
        }
        return BenchmarksConfig.model_validate(settings | changes)

    def score(self, name: str = "run", **changes: object) -> BenchmarkMetrics:
        out = self.root / name / "out"
        out.mkdir(parents=True)
        metrics = score(
            model=self.model,
            benchmarks=self.config(**changes),
            lora_checkpoint=self.lora,
            full_finetune_checkpoint=self.full,
            out=out,
            scratch=self.root / name / "scratch",
            progress=Progress(self.said.append),
            compute=ComputeConfig(profile="cpu"),
        )
        assert metrics is not None
        return metrics

    def out(self, name: str = "run") -> Path:
        return self.root / name / "out"


def write_questions(project: Path, name: str, answers: list[str]) -> None:
    folder = project / "resources/mini_world/data" / name
    folder.mkdir(parents=True, exist_ok=True)
    problems = [f"{name} : start with {i} .\n(1) add {i % 7} {'and ' * (i % 5)}" for i in range(len(answers))]
    pq.write_table(pa.table({"problem": problems, "answer": answers}), folder / "test.parquet")


@pytest.fixture(scope="session")
def tiny_full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen2(tmp_path_factory.mktemp("full"), seed=5)


@pytest.fixture
def world(
    tmp_path: Path, tiny_model: Path, tiny_adapter: Path, tiny_full: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    project = tmp_path / "project"
    for name in ("hard", "medium"):
        write_questions(project, name, [str(i % 10) for i in range(QUESTIONS)])
    write_questions(project, "choice", ["ABCD"[i % 4] for i in range(QUESTIONS)])
    (project / "dagster.yaml").touch()  # by which a clone is known
    monkeypatch.setattr(resources.sources, "PROJECT", project)
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    return World(tmp_path, ModelConfig(name=str(tiny_model), dtype="float32"), tiny_adapter, tiny_full)
