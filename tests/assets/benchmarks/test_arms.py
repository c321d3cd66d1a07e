"""What tells the arms of one experiment apart, and what it costs to know."""

import shutil
from pathlib import Path

import pytest

from assets.benchmarks.arms import build_arms
from assets.benchmarks.config import BenchmarksConfig
from resources import keys
from resources.models import ModelConfig
from resources.sources import PROJECT
from tests.builders import build_random_adapter


def test_a_local_base_model_is_hashed_once_for_all_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, hashed = shutil.copytree(PROJECT / "resources/mini_world/model", tmp_path / "base"), []
    lora = build_random_adapter(tmp_path / "lora", base)
    digest = keys.file_digest

    def counted(path: Path) -> str:
        hashed.append(path)
        return digest(path)

    monkeypatch.setattr(keys, "file_digest", counted)
    model = ModelConfig(name=str(base), dtype="float32")
    arms = build_arms(model, BenchmarksConfig(), lora, tmp_path / "lora", tmp_path / "scratch")
    assert len({arm.version for arm in arms}) == 5
    assert hashed.count(base / "model.safetensors") == 1
