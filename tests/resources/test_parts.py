"""A part of a job's work is taken up as it was written, or not at all."""

import random
from pathlib import Path

import pytest

from resources.parts import drop_damaged, noted
from tests.faults.damage import Harm, empty, flip, truncate


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with noted(path) as partial:
        partial.write_text(text)


@pytest.mark.parametrize("harm", [truncate, empty, flip])
def test_a_damaged_part_is_removed_and_named_and_its_neighbours_stay(tmp_path: Path, harm: Harm) -> None:
    good, bad, unknown = tmp_path / "a.npz", tmp_path / "step-1" / "b.safetensors", tmp_path / "events"
    write(good, "good")
    write(bad, "was good")
    unknown.write_text("nobody noted this")
    assert drop_damaged(tmp_path) == []
    harm(bad, random.Random(16))
    assert drop_damaged(tmp_path) == [bad]
    assert good.exists() and unknown.exists() and not bad.exists()
    write(bad, "made again")
    assert drop_damaged(tmp_path) == []


def test_a_kill_while_a_part_is_replaced_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an SAE's checkpoint is, again and again under one name."""
    path = tmp_path / "checkpoint"
    for text in ("after 100 steps", "after 200 steps"):
        write(path, text)

    def killed(partial: Path) -> None:
        raise KeyboardInterrupt(partial)

    monkeypatch.setattr("resources.whole.sync", killed)  # the last thing before the new file gets the name
    with pytest.raises(KeyboardInterrupt):
        write(path, "after 300 steps")
    assert path.read_text() == "after 200 steps"
    assert drop_damaged(tmp_path) == []


def test_a_damaged_note_and_a_missing_part_end_nothing(tmp_path: Path) -> None:
    gone, path = tmp_path / "gone", tmp_path / "part"
    write(gone, "1")
    write(path, "2")
    gone.unlink()
    (tmp_path / ".part.sha256").write_bytes(b"\xff\xfe")
    assert drop_damaged(tmp_path) == [path]
