"""A batch that was asked for and never confirmed is found at the vendor among those of others, or sent again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic_ai.models.batch import Batch

from resources.errors import BadInput
from resources.llm import batch
from resources.llm.ask import ask
from resources.llm.batch_calls import Refused
from resources.llm.cache import ResponseCache, SentBatch
from resources.llm.endpoint import Endpoint, Provider
from resources.llm.ledger import Reservation
from resources.llm.lost_batch import find_lost
from tests.resources.llm.fault_server import Settings
from tests.resources.llm.servers import BATCH, KEY, SILENT, Label, batches_noted, questions, serving, set_aside

VENDORS: tuple[Provider, ...] = ("openai", "anthropic")


@pytest.mark.parametrize("provider", VENDORS)
def test_a_batch_whose_confirmation_got_lost_is_found_at_the_vendor_and_not_paid_twice(
    provider: Provider, home: Path
) -> None:
    """A batch of as many questions, made just before, is not mistaken for it."""
    with serving(Settings(key=KEY, lost=(1,), batch_polls=3)) as server:
        endpoint = server.endpoint(provider)
        ask(questions(20, start=900), 20, endpoint, BATCH, SILENT, "label")
        asked = ask(questions(20), 20, endpoint, BATCH, SILENT, "label")
        counts = server.counts()
    assert all(isinstance(answer.value, Label) for answer in asked.answers.values())
    assert (len(asked.answers), counts["batches"], counts["requests"], counts["repeated"]) == (20, 2, 40, 0)
    assert not batches_noted(home, endpoint.name)
    assert set_aside(home) == 0


@pytest.mark.parametrize("provider", VENDORS)
def test_a_run_killed_before_it_noted_its_batch_finds_it_at_the_vendor(
    provider: Provider, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(cache: ResponseCache, *_: object) -> None:
        raise KeyboardInterrupt

    with serving(Settings(key=KEY)) as server:
        endpoint = server.endpoint(provider)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(ResponseCache, "confirm_batch", die)
            ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert set_aside(home) == 1
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        counts = server.counts()
    assert (len(done.answers), counts["batches"], counts["requests"]) == (5, 1, 5)
    assert 2 * done.bill.cost_usd == pytest.approx(counts["dollars"], rel=1e-6)
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


@pytest.mark.parametrize("provider", VENDORS)
def test_a_batch_that_the_vendor_never_got_is_sent_by_the_next_run(provider: Provider, home: Path) -> None:
    with serving(Settings(key=KEY, unmade=2)) as server:
        endpoint = server.endpoint(provider)
        with pytest.raises(BadInput, match="cannot be reached"):
            ask(questions(5), 5, endpoint, replace(BATCH, attempts=2), SILENT, "label")
        assert (server.counts()["batches"], set_aside(home)) == (0, 1)
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (len(done.answers), server.counts()["batches"]) == (5, 1)
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


def test_while_a_lost_batch_is_looked_for_none_is_waited_for_that_cannot_be_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them may take a day: another one of ours, one of another size, and one made an hour before."""
    now = datetime.now(UTC)
    sizes, collected = {"ours": 2, "larger": 3, "lost": 2, "old": 2}, []

    async def newest_first(_: object) -> AsyncIterator[tuple[str, datetime]]:
        for name in sizes:
            yield name, now - timedelta(hours=name == "old")

    async def counted(batch: Batch) -> Batch:
        return replace(batch, request_count=sizes[batch.id])

    async def keys_of(batch: Batch) -> set[str]:
        collected.append(batch.id)
        return {"a", "b"}

    monkeypatch.setattr("resources.llm.lost_batch._newest_first", newest_first)
    model: Any = SimpleNamespace(model_name="m", system="openai")
    calls: Any = SimpleNamespace(counted=counted, keys=keys_of)
    request: Any = SimpleNamespace(group="g")
    for keys, expected in (("ab", "lost"), ("ac", None)):
        sent = SentBatch("unconfirmed", "", list(keys), Reservation(1, 0.0), now.timestamp())
        found = asyncio.run(find_lost(model, calls, request, sent, ["ours"]))
        assert (found and found.id, collected) == (expected, ["lost"])
        collected.clear()


def _killed_before_it_noted(count: int, start: int, home: Path, endpoint: Endpoint) -> None:
    """A run of its own installation, whose batch is at the vendor."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setenv("LORASCOPE_HOME", str(home))
        patched.setattr(ResponseCache, "confirm_batch", die)
        ask(questions(count, start=start), count, endpoint, BATCH, SILENT, "label")


def test_a_killed_runs_batch_that_failed_as_a_whole_is_sent_again(home: Path) -> None:
    with serving(Settings(key=KEY, failing=(0,))) as server:
        endpoint = server.endpoint()
        _killed_before_it_noted(5, 0, home, endpoint)
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (len(done.answers), done.bill.requests, server.counts()["batches"]) == (5, 5, 2)
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


def test_a_strangers_failed_batch_of_no_known_size_does_not_hide_ours(home: Path, tmp_path: Path) -> None:
    with serving(Settings(key=KEY, failing=(1,))) as server:
        endpoint = server.endpoint()
        _killed_before_it_noted(5, 0, home, endpoint)
        _killed_before_it_noted(7, 900, tmp_path / "stranger", endpoint)
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (len(done.answers), server.counts()["batches"]) == (5, 2)
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


def test_a_strangers_batch_that_is_still_validated_is_waited_for_only_until_its_size_is_known(
    home: Path, tmp_path: Path
) -> None:
    with serving(Settings(key=KEY, validation_polls=3, batch_polls=4, endless=(1,))) as server:
        endpoint = server.endpoint()
        _killed_before_it_noted(5, 0, home, endpoint)
        _killed_before_it_noted(7, 900, tmp_path / "stranger", endpoint)
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (len(done.answers), server.counts()["batches"]) == (5, 2)


def test_ours_is_found_while_it_is_still_validated(home: Path) -> None:
    with serving(Settings(key=KEY, validation_polls=5, batch_polls=8)) as server:
        endpoint = server.endpoint()
        _killed_before_it_noted(5, 0, home, endpoint)
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (len(done.answers), server.counts()["batches"]) == (5, 1)


@pytest.mark.parametrize("provider", VENDORS)
def test_a_strangers_batch_of_our_size_whose_results_are_gone_does_not_hide_ours(
    provider: Provider, home: Path, tmp_path: Path
) -> None:
    with serving(Settings(key=KEY, gone=(1,))) as server:
        endpoint = server.endpoint(provider)
        _killed_before_it_noted(5, 0, home, endpoint)
        _killed_before_it_noted(5, 900, tmp_path / "stranger", endpoint)
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (len(done.answers), server.counts()["batches"]) == (5, 2)
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


def test_a_refusal_on_the_search_for_a_lost_batch_is_none_of_the_batch_which_stays_noted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise Refused("no right to read this batch")

    with serving(Settings(key=KEY, lost=(0,))) as server:
        endpoint = server.endpoint()
        with monkeypatch.context() as patched, pytest.raises(BadInput, match="no right to read"):
            patched.setattr(batch, "find_lost", refuse)
            ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (batches_noted(home, endpoint.name), set_aside(home)) == (True, 1)
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (len(done.answers), server.counts()["batches"]) == (5, 1)
