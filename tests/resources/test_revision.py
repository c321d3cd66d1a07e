"""A key rests on a commit or on a folder's content, never on a branch that moves."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from assets.adapter.config import LoraConfig
from assets.dataset.config import DatasetConfig
from resources.models import ModelConfig
from resources.revision import check_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:7], COMMIT.upper()])
def test_a_hub_id_without_a_whole_commit_is_refused(revision: str | None) -> None:
    with pytest.raises(ValueError, match=r"nobody/knows is no local folder: set revision to a commit"):
        check_commit("nobody/knows", revision)


def test_a_commit_will_do_and_a_folder_needs_none(tmp_path: Path) -> None:
    check_commit("nobody/knows", COMMIT)
    check_commit(str(tmp_path), "main")


def test_a_file_is_told_to_be_one_and_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"train\.jsonl is a file: name the folder that it lies in$"):
        check_commit(str(tmp_path / "train.jsonl"), None)


@pytest.mark.parametrize("name", ["/data/modell", "./modell", "~/modell", "resources/mini_world/modell", "“x”/y"])
def test_a_path_that_leads_nowhere_is_not_taken_for_a_hub_id(name: str) -> None:
    with pytest.raises(ValueError, match=f"^there is no folder {re.escape(name)}, and a hub id is written owner/name$"):
        check_commit(name, COMMIT)


def test_another_source_does_not_inherit_the_papers_commit() -> None:
    with pytest.raises(ValidationError, match=r"nobody/knows .* 5ede1c9 is one of Qwen/Qwen2\.5-32B-Instruct"):
        ModelConfig(name="nobody/knows")
    with pytest.raises(ValidationError, match=r"nobody/knows .* 96c411f is one of simplescaling/s1K-1\.1"):
        DatasetConfig(source="nobody/knows")
    assert DatasetConfig(source="nobody/knows", revision=COMMIT).revision == COMMIT


def test_a_branch_is_refused_wherever_a_hub_id_may_stand() -> None:
    for section in (ModelConfig, DatasetConfig):
        with pytest.raises(ValidationError, match="not main"):
            section(revision="main")
    with pytest.raises(ValidationError, match="not main"):
        LoraConfig(source="jnward2/qwen-reasoning-lora", revision="main")
