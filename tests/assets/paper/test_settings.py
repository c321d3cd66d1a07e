"""What a report says of its experiment's settings."""

from assets.paper.settings import settings
from assets.sections import SECTIONS
from dagster_project.experiment import Experiments
from resources.sources import PROJECT
from tests.assets.paper.test_page import manifest


def test_only_what_is_set_otherwise_is_told_as_one_would_write_it_and_in_the_rooms_order() -> None:
    sae = manifest("batchtopk_sae").model_copy(
        update={"sections": {"sae": {"k": 4, "seed": 42, "layers": [1, 2]}, "model": {"dtype": "float32"}}}
    )
    shards = manifest("activation_shards").model_copy(update={"sections": {"activations": {"positions": "assistant"}}})
    assert settings([sae, shards]) == [
        {"setting": "model.dtype", "here": "float32", "default": "bfloat16"},
        {"setting": "activations.positions", "here": "assistant", "default": "all"},
        {"setting": "sae.k", "here": "4", "default": "16"},
        {"setting": "sae.layers", "here": "1, 2", "default": "null"},
    ]


def test_the_published_run_departs_from_the_defaults_in_the_contexts_alone() -> None:
    paper = Experiments(PROJECT / "experiments").load("paper")
    found = manifest("all").model_copy(update={"sections": {name: paper.values(name) for name in SECTIONS}})
    assert settings([found]) == [{"setting": "contexts.k", "here": "96", "default": "64"}]


def test_artifacts_without_settings_tell_none() -> None:
    assert settings([manifest("paper_report")]) == []
