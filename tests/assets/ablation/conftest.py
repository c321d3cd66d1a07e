"""The tiny world of this room: two layers, grouped queries, four rollouts."""

from pathlib import Path

import pytest

from assets.ablation.adapted import AdaptedModel
from tests.assets.ablation.world import PROMPT_TOKENS, World, build_world, recaptured


@pytest.fixture(scope="session")
def world(tiny_model: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("ablation"), tiny_model, tiny_adapter)


@pytest.fixture(scope="session")
def adapted(world: World) -> AdaptedModel:
    return AdaptedModel.load(world.model, world.adapter, "cpu")


@pytest.fixture(scope="session")
def replies_only(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Shards that hold the assistant's positions alone."""
    return recaptured(world, tmp_path_factory.mktemp("replies") / "world", slice(PROMPT_TOKENS, None))
