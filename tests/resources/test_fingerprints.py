"""Hashes of outside data: made once per state of the files, and kept in the home where they take long to make."""

import os
from pathlib import Path

import pytest

from resources import fingerprints as module
from resources.fingerprints import fingerprints
from resources.keys import folder_digest


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The folders that were hashed, one entry each time; a home of its own, and 8 bytes are large."""
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "KEPT_FROM", 8)
    seen: list[Path] = []
    monkeypatch.setattr(module, "folder_digest", lambda folder: seen.append(folder) or folder_digest(folder))
    return seen


def build_model(folder: Path, content: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_text(content)
    return str(folder)


def of_a_new_process(name: str) -> str:
    """Its hash where nothing is remembered but what the home keeps."""
    module._digest.cache_clear()
    return fingerprints((name,))[name]


def test_a_large_folder_is_hashed_once_by_all_processes_until_a_file_changes(
    tmp_path: Path, hashed: list[Path]
) -> None:
    model = build_model(tmp_path / "model", "weights!")
    first = of_a_new_process(model)
    assert of_a_new_process(model) == first == folder_digest(tmp_path / "model")
    assert len(hashed) == 1
    build_model(tmp_path / "model", "weights?")
    second = of_a_new_process(model)
    assert second == folder_digest(tmp_path / "model") != first
    assert len(hashed) == 2


def test_a_change_that_keeps_size_and_time_of_a_file_is_seen(tmp_path: Path, hashed: list[Path]) -> None:
    model = build_model(tmp_path / "model", "weights!")
    weights = tmp_path / "model" / "model.safetensors"
    first, before = of_a_new_process(model), weights.stat()
    weights.write_text("weights?")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert of_a_new_process(model) != first
    assert len(hashed) == 2


def test_a_small_folder_is_hashed_by_every_process_and_leaves_nothing_in_the_home(
    tmp_path: Path, hashed: list[Path]
) -> None:
    model = build_model(tmp_path / "model", "weight")
    assert of_a_new_process(model) == of_a_new_process(model)
    assert len(hashed) == 2 and not (tmp_path / "home").exists()


@pytest.mark.parametrize("harm", ["", "no hash", "ä"])
def test_a_damaged_note_is_made_again(tmp_path: Path, hashed: list[Path], harm: str) -> None:
    model = build_model(tmp_path / "model", "weights!")
    first = of_a_new_process(model)
    (note,) = (tmp_path / "home" / "fingerprints").iterdir()
    note.write_text(harm)
    assert of_a_new_process(model) == first == note.read_text()
    assert len(hashed) == 2


def test_a_home_that_takes_no_note_costs_only_time(tmp_path: Path, hashed: list[Path]) -> None:
    model = build_model(tmp_path / "model", "weights!")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "fingerprints").write_text("a file where the folder would be")
    assert of_a_new_process(model) == of_a_new_process(model) == folder_digest(tmp_path / "model")
    assert len(hashed) == 2
