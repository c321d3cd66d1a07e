"""Shards written behind the forward pass: how many at once, how long they are waited for, and what stops them."""

import random
from itertools import count
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest

from assets.activations import shelf as module
from assets.activations.config import ActivationsConfig
from assets.activations.shelf import Shelf
from resources.parts import drop_damaged
from resources.shards import Shards, StateBatch
from tests.faults.damage import flip


def two_rows() -> StateBatch:
    ids = np.array([0, 1], np.int32)
    return StateBatch(np.zeros(2, np.int32), ids, ids, np.array([[0.5], [2.0]], np.float16))


def empty_shelf(folder: Path) -> Shelf:
    return Shelf(folder, ("L0.q_proj",), "made from this", ActivationsConfig())


def test_two_shards_are_written_at_once_and_no_third_waits_in_memory(tmp_path: Path) -> None:
    """Each maker of a pair returns only while the other one runs."""
    shelf, both, pending = empty_shelf(tmp_path), Barrier(2, timeout=60), list[int]()

    def rows() -> StateBatch:
        both.wait()
        return two_rows()

    with shelf.writing() as put:
        for index in range(4):
            put(index, rows)
            pending.append(len(shelf._queue))
    assert pending == [1, 2, 2, 2]
    assert [shelf.fingerprint_of(index) for index in range(5)] == ["made from this"] * 4 + [None]
    (batch,) = Shards.of((shelf.path(3),)).batches(10)
    assert batch.state_BC.tolist() == [[0.5], [2.0]]


def test_the_time_that_every_shard_was_waited_for_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves by a second whenever it is read: twice for each of three shards."""
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=count().__next__))
    shelf = empty_shelf(tmp_path)
    with shelf.writing() as put:
        for index in range(3):
            put(index, two_rows)
    assert shelf.waited_s == 3


def test_what_is_no_full_disk_is_not_called_one(tmp_path: Path) -> None:
    shelf = empty_shelf(tmp_path / "gone")
    with pytest.raises(FileNotFoundError), shelf.writing() as put:
        put(0, two_rows)


def test_a_damaged_shard_is_dropped_as_every_part_of_a_job_is(tmp_path: Path) -> None:
    shelf = empty_shelf(tmp_path)
    with shelf.writing() as put:
        put(0, two_rows)
        put(1, two_rows)
    flip(shelf.path(0), random.Random(0))
    assert drop_damaged(tmp_path) == [shelf.path(0)]
    assert [shelf.fingerprint_of(index) for index in range(2)] == [None, "made from this"]
