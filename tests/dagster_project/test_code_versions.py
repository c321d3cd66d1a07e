"""A room's science cannot change silently: the recorded hash and the code version move together."""

from pathlib import Path

import pytest

from dagster_project.code_versions import RECORD, present, science_hash, unsaid

SCIENCE = 'def double(x: int) -> int:\n    """Twice."""\n    # reason\n    return 2 * x\n'


def hash_of(folder: Path, text: str) -> str:
    (folder / "room").mkdir(exist_ok=True)
    (folder / "room" / "verb.py").write_text(text)
    return science_hash("room", folder)


def test_no_room_changed_its_science_without_bumping_its_code_version() -> None:
    import json

    changed = unsaid(json.loads(RECORD.read_text()), present())
    assert changed == [], (
        "bump code_version where results can differ, then `python -m dagster_project.code_versions --refresh`"
    )


@pytest.mark.parametrize(
    "same",
    [
        SCIENCE.replace("Twice.", "Two times."),
        SCIENCE.replace("# reason", "# another reason\n"),
        SCIENCE.replace("2 * x", "(2   *  x)"),
    ],
    ids=["docstring", "comment", "layout"],
)
def test_docstrings_comments_and_layout_are_not_science(tmp_path: Path, same: str) -> None:
    assert hash_of(tmp_path, SCIENCE) == hash_of(tmp_path, same)


def test_a_changed_number_or_a_changed_data_file_is_science(tmp_path: Path) -> None:
    before = hash_of(tmp_path, SCIENCE)
    assert hash_of(tmp_path, SCIENCE.replace("2 *", "3 *")) != before
    (tmp_path / "room" / "prompt.md").write_text("Explain.")
    with_prompt = hash_of(tmp_path, SCIENCE)
    (tmp_path / "room" / "prompt.md").write_text("Explain!")
    assert len({before, with_prompt, hash_of(tmp_path, SCIENCE)}) == 3


def test_a_bumped_version_makes_a_change_said() -> None:
    recorded = {"sae": {"science": "a", "versions": {"batchtopk_sae": 1}}}
    assert unsaid(recorded, {"sae": {"science": "b", "versions": {"batchtopk_sae": 1}}}) == ["sae"]
    assert unsaid(recorded, {"sae": {"science": "b", "versions": {"batchtopk_sae": 2}}}) == []
