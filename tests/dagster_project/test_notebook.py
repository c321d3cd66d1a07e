"""What a notebook's attributes are: artifacts, each opened once."""

from pathlib import Path

import pytest

from dagster_project.notebook import OpenExperiment
from resources.errors import BadInput
from resources.store import Store
from tests.dagster_project.edits import load


def test_an_artifact_is_opened_at_its_first_mention_and_what_is_not_there_yet_at_every_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening hashes all files up to 64 MiB: nine gigabytes of the paper's shards."""
    opened = OpenExperiment(load(tmp_path, {}), Store(tmp_path / "store"))
    for _ in range(2):
        with pytest.raises(BadInput, match="batchtopk_sae of 'e' is not computed yet"):
            _ = opened.batchtopk_sae
    asked: list[str] = []
    monkeypatch.setattr(OpenExperiment, "open", lambda _, asset: asked.append(asset) or [asset])
    assert opened.batchtopk_sae is opened.batchtopk_sae
    assert asked == ["batchtopk_sae"]
    assert repr(opened) == "open_experiment('e')"
