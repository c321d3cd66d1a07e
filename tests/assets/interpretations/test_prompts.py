"""Which prompts enter which keys: those that are put to somebody, and no others of their folder."""

import shutil
from pathlib import Path

import pytest

from assets.categories.config import CategoriesConfig
from assets.interpretations.config import InterpretationsConfig, ScoresConfig
from resources import sources
from resources.fingerprints import fingerprints
from resources.section import Section

ASKING = {"provider": "openai"}
READ = [
    (InterpretationsConfig.model_validate(ASKING), ["b1"]),
    (CategoriesConfig.model_validate(ASKING), ["b2", "assign"]),
    (ScoresConfig(methods=("detection", "intruder")), ["detection", "intruder"]),
]
"""Sections and the prompts that they read."""


@pytest.mark.parametrize(("section", "read"), READ, ids=[type(section).__name__ for section, _ in READ])
def test_an_edited_prompt_is_a_new_key_of_what_reads_it_and_one_more_beside_it_of_nothing(
    section: Section, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [Path(name).stem for name in section.sources()] == read
    before = fingerprints(section.sources())
    (folder,) = {Path(name).parent for name in section.sources()}
    copied = shutil.copytree(sources.PROJECT / folder, tmp_path / folder)
    monkeypatch.setattr(sources, "PROJECT", tmp_path)
    (copied / "mine.txt").write_text("# system\n# user\n")
    assert fingerprints(section.sources()) == before
    for name in read:
        prompt = copied / f"{name}.txt"
        prompt.write_text(prompt.read_text() + "Be brief.\n")
        assert fingerprints(section.sources()) != before
        before = fingerprints(section.sources())


def test_no_prompt_is_a_source_where_no_llm_is_asked() -> None:
    assert InterpretationsConfig(provider="statistical").sources() == ()
    assert CategoriesConfig(provider="statistical").sources() == ()
