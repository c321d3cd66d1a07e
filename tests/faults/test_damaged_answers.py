"""Answers of benchmarks outlive experiments and have no manifest: a damaged file is generated anew, never read."""

import random
import resource
from pathlib import Path

import pytest

from assets.benchmarks.engine import Arm, Completion, Request
from assets.benchmarks.generations import GenerationCache, Shard, shards
from resources.errors import BadInput
from tests.faults.damage import HARMS, Harm

ANSWERS = [Completion(f"the answer is {number} " * 20, number, "stop") for number in range(8)]


def build_shard(tmp_path: Path) -> Shard:
    arm = Arm("base", tmp_path, None, "v1")
    [shard] = shards(arm, "mini_hard", [Request(f"{number}?", 8, (), 0.0, 0) for number in range(8)], 8, [])
    return shard


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_of_answers_is_missing_and_is_never_read(tmp_path: Path, harm: Harm) -> None:
    shard, random_ = build_shard(tmp_path), random.Random(12)
    for _ in range(25):
        GenerationCache(tmp_path / "cache").write(shard, ANSWERS)
        harm(tmp_path / "cache" / f"{shard.key}.parquet", random_)
        cache = GenerationCache(tmp_path / "cache")
        try:
            assert cache.read(shard) == ANSWERS, "a bit that no reader looks at was turned over"
            assert cache.has(shard)
        except BadInput:
            assert not cache.has(shard)
            assert list((tmp_path / "cache").iterdir()) == []


def test_answers_that_cannot_be_looked_at_now_are_not_taken_for_damaged(tmp_path: Path) -> None:
    """Hours of a GPU: too many open files, a file server that is away and a missing right say nothing of them."""
    shard = build_shard(tmp_path)
    GenerationCache(tmp_path / "cache").write(shard, ANSWERS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            GenerationCache(tmp_path / "cache").has(shard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert GenerationCache(tmp_path / "cache").read(shard) == ANSWERS
