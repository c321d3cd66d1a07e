"""What `explained` turns into a sentence about the source, and what it leaves to others."""

from pathlib import Path

import pytest
import torch

from resources import hub
from resources.errors import BadInput
from resources.hub import explained, fetched


def test_a_device_without_room_is_not_taken_for_a_missing_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    for source in (str(tmp_path), "someone/model"):
        with pytest.raises(torch.OutOfMemoryError, match="270 MiB"), explained(source):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 270 MiB")


def test_any_other_error_of_the_runtime_names_the_source(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder but cannot be loaded: torn"), explained(str(tmp_path)):
        raise RuntimeError("torn")


def test_a_local_folder_is_fetched_as_it_is_whatever_the_revision(tmp_path: Path) -> None:
    assert fetched(str(tmp_path), None) == fetched(str(tmp_path), "a" * 40) == tmp_path
