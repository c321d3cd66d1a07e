"""The tiny world of this room: two layers, grouped queries, four rollouts."""

from pathlib import Path

import pytest

from assets.ablation.adapted import AdaptedModel
from tests.assets.ablation.world import World, build_world, without_prompts


@pytest.fixture(scope="session")
def world(tiny_model: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("ablation"), tiny_model, tiny_adapter)


@pytest.fixture(scope="session")
def adapted(world: World) -> AdaptedModel:
    return AdaptedModel.load(world.model, world.adapter, "cpu")


@pytest.fixture(scope="session")
def replies_only(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Shards that hold the assistant's positions alone."""
    return without_prompts(world, tmp_path_factory.mktemp("replies") / "world")
