"""What was paid for is found again as it was, and a batch under way by the endpoint that it was sent to."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from resources.errors import BadInput
from resources.llm import cache as answers
from resources.llm.cache import FILE_NAME, ResponseCache, SentBatch, Stored, export_cache, import_cache, list_cache
from resources.llm.ledger import Reservation
from tests.mounts import mount, unmount
from tests.resources.llm.servers import wait_until

STORED = Stored("k1", "openai", "m", "", "v1", "{}", '"first"', 1, 2, 0.5, 20.0)


def build_cache(path: Path, answers: int, size: int = 10) -> ResponseCache:
    cache = ResponseCache(path)
    for number in range(answers):
        cache.put(replace(STORED, key=f"{number}", response=f'"{"x" * size}"'))
    return cache


def test_the_first_answer_to_a_question_stays_and_answers_are_listed_as_they_came(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / FILE_NAME)
    again, other = replace(STORED, response='"second"', dollars=9.0), replace(STORED, key="k2", created=10.0)
    for stored in (STORED, again, other):
        cache.put(stored)
    assert (cache.get("k1"), cache.get("k3")) == ('"first"', None)
    assert [stored.key for stored in cache.rows()] == ["k1", "k2"]
    cache.close()
    (row,) = list_cache(tmp_path / FILE_NAME)
    assert (row["answers"], row["input_tokens"], row["output_tokens"], row["dollars"]) == (2, 2, 4, 1.0)


def test_a_batch_is_known_at_its_endpoint_alone_by_the_vendors_name_until_it_is_collected(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / FILE_NAME)
    sent = SentBatch("ours", "", ["k1", "k2"], Reservation(7, 0.5), 10.0)
    later = SentBatch("later", "", ["k3"], Reservation(8, 0.25), 20.0)
    for batch in (later, sent):
        cache.add_batch(batch, "here")
    confirmed = cache.confirm_batch(sent, "theirs", "{}")
    assert confirmed == replace(sent, id="theirs", handle="{}")
    assert cache.batches("here") == [confirmed, later]
    assert cache.batches("elsewhere") == []
    cache.forget_batch("theirs")
    assert cache.batches("here") == [later]
    cache.close()


def test_an_export_sorts_nothing_which_would_take_the_size_of_all_answers_in_another_place(tmp_path: Path) -> None:
    cache = build_cache(tmp_path / FILE_NAME, 2)
    said: list[str] = []
    cache.connection.set_trace_callback(said.append)
    assert len(list(cache.rows())) == 2
    plan = cache.connection.execute(f"explain query plan {said[0]}").fetchall()
    assert len(plan) == 1, plan
    cache.close()


def test_an_export_that_finds_no_room_leaves_the_earlier_one_and_names_its_own_disk(tmp_path: Path) -> None:
    build_cache(tmp_path / FILE_NAME, 40, 10_000).close()
    full = tmp_path / "full"
    mount(full, "-t", "tmpfs", "-o", "size=256k", "tmpfs")
    try:
        (full / "x").write_text("earlier")
        with pytest.raises(BadInput, match=r"full/x cannot be written \(No space left on device\)"):
            export_cache(tmp_path / FILE_NAME, full / "x")
        assert [(path.name, path.read_text()) for path in full.iterdir()] == [("x", "earlier")]
    finally:
        unmount(full)


def test_an_export_goes_into_a_pipe_too(tmp_path: Path) -> None:
    build_cache(tmp_path / FILE_NAME, 3).close()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        assert export_cache(tmp_path / FILE_NAME, pipe) == 3
        assert len(read.result().splitlines()) == 3
    assert pipe.is_fifo()


def test_a_run_keeps_its_own_answers_while_a_long_file_is_imported_and_a_kill_leaves_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "TOGETHER", 2)
    monkeypatch.setattr(answers, "BUSY_S", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        imported = pool.submit(import_cache, tmp_path / FILE_NAME, pipe)
        with pipe.open("w") as file:
            file.writelines(json.dumps(asdict(replace(STORED, key=f"{number}"))) + "\n" for number in range(5))
            file.flush()
            run = ResponseCache(tmp_path / FILE_NAME)
            wait_until(lambda: len(list(run.rows())) == 4)
            run.put(STORED)
            run.close()
        assert imported.result() == 5, "the run's own is not among the new ones"
