"""Which process this is, and how work is shared without a word between processes."""

import threading
import time
from pathlib import Path

import pytest

from resources.ranks import Rank, wait_for


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LORASCOPE_ATTEMPT", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert Rank.here() == Rank(0, 1, 0, "alone")


def test_torchruns_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "16"), ("LOCAL_RANK", "1"), ("TORCHELASTIC_RUN_ID", "abc")):
        monkeypatch.setenv(name, value)
    rank = Rank.here()
    assert (rank.index, rank.world, rank.device("cuda"), rank.device("cpu")) == (5, 16, "cuda:1", "cpu")
    assert "abc" in rank.attempt


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_disjoint_and_cover_everything(world: int) -> None:
    shares = [Rank(index, world).share(7) for index in range(world)]
    assert sorted(number for share in shares for number in share) == list(range(7))


def test_waiting_ends_when_the_last_file_is_there(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    paths[0].touch()
    timer = threading.Timer(0.2, lambda: [path.touch() for path in paths])
    began = time.monotonic()
    timer.start()
    wait_for(paths)
    timer.join()
    assert time.monotonic() - began >= 0.15
    assert all(path.exists() for path in paths)
