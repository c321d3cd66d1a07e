"""A built site, once for all tests of the room."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from assets.dashboard.build import DashboardMetrics, build
from assets.dashboard.config import DashboardConfig
from resources.models import ModelConfig
from resources.progress import Progress
from tests.dashboard_builders import Built, build_artifacts


@dataclass(frozen=True)
class Site:
    """A dashboard of the small artifact set."""

    folder: Path
    built: Built
    metrics: DashboardMetrics
    config: DashboardConfig


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_adapter: Path) -> Site:
    """Chunks smaller than the content, so that every boundary is crossed."""
    folder = tmp_path_factory.mktemp("dashboard")
    built = build_artifacts(folder)
    config = DashboardConfig(
        units_per_chunk=7, rollouts_per_chunk=2, full_rollouts=1, full_rollouts_neuron=1, top_contexts=12
    )
    metrics = build(
        model=ModelConfig(name=str(tiny_model), dtype="float32"),
        dashboard=config,
        lora_checkpoint=tiny_adapter,
        out=folder / "site",
        progress=Progress(lambda _text: None),
        **built.folders,
    )
    return Site(folder / "site", built, metrics, config)
