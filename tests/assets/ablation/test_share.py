"""Processes share fixed shards: two write what one writes, and a process that fails leaves finished shards."""

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.ablation import share
from assets.ablation.adapted import AdaptedModel
from assets.ablation.config import AblationConfig
from resources.errors import BadInput
from resources.models import ModelConfig
from resources.progress import Progress
from resources.ranks import Rank
from tests.assets.ablation.test_ablate import run
from tests.assets.ablation.world import World, progress

CONFIG = AblationConfig(max_tokens=20, greedy_steps=1, slices=3)


def load_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers patches itself while it loads: two threads at once leave `tie_weights` patched for good."""
    load, loading = AdaptedModel.load, threading.Lock()

    def guarded(model: ModelConfig, adapter: Path, device: str) -> AdaptedModel:
        with loading:
            return load(model, adapter, device)

    monkeypatch.setattr(AdaptedModel, "load", guarded)


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_write_the_table_of_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    run(world, tmp_path / "one", CONFIG)
    here = threading.local()
    monkeypatch.setattr(Rank, "here", lambda: Rank(here.rank, size))
    load_one_at_a_time(monkeypatch)
    failures = []

    def worker(rank: int) -> None:
        here.rank = rank
        try:
            run(world, tmp_path / "many", CONFIG)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=worker, args=(rank,)) for rank in range(size)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join(timeout=120)
    assert not failures
    for name in ("ablation.parquet", "rollouts.parquet", "interactions.parquet"):
        one, many = (pq.read_table(tmp_path / folder / "out" / name) for folder in ("one", "many"))
        assert one.equals(many)


def test_a_shard_that_fails_leaves_the_finished_ones(tmp_path: Path) -> None:
    made: list[int] = []

    def make(i: int) -> pa.Table:
        if i == 2 and len(made) == 2:
            raise BadInput("the device is gone")
        made.append(i)
        return pa.table({"i": [i]})

    with pytest.raises(BadInput):
        share.work_through(["a", "b", "c"], make, tmp_path, progress(), "working")
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["a.parquet", "b.parquet"]
    made.append(-1)
    lines: list[str] = []
    tables = share.work_through(["a", "b", "c"], make, tmp_path, Progress(lines.append, 0), "working")
    assert lines[-1].startswith("working 3/3")
    assert [table["i"][0].as_py() for table in tables] == [0, 1, 2]
    assert made == [0, 1, -1, 2]
