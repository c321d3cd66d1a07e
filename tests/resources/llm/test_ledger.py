"""Money is set aside before a request and settled after it, whatever other runs do and whenever one is killed."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from resources.llm.cache import connect
from resources.llm.ledger import Ledger, OverBudget

Connected = Callable[[Path], sqlite3.Connection]
OpenLedger = Callable[..., Ledger]


@pytest.fixture
def connected() -> Iterator[Connected]:
    with ExitStack() as opened:
        yield lambda path: opened.enter_context(closing(connect(path)))


@pytest.fixture
def ledger_at(connected: Connected) -> OpenLedger:
    def build(path: Path, run: float = 1.0, purse: float = 10.0, name: str = "p") -> Ledger:
        return Ledger(connected(path), name, run, purse)

    return build


def test_money_set_aside_counts_until_it_is_settled(tmp_path: Path, ledger_at: OpenLedger) -> None:
    ledger = ledger_at(tmp_path / "a.sqlite")
    first, second, third = ledger.reserve(0.5), ledger.reserve(0.25), ledger.reserve(0.25)
    with pytest.raises(OverBudget):
        ledger.reserve(0.01)
    ledger.settle(first, 0.125)
    ledger.lose(second)
    ledger.lose(third)
    assert (ledger.spent, ledger.unknown, ledger.under_way) == (0.125, 0.5, False)
    ledger.reserve(0.375)
    with pytest.raises(OverBudget):
        ledger.reserve(0.01)


def test_a_killed_runs_money_stays_counted_in_its_purse(tmp_path: Path, ledger_at: OpenLedger) -> None:
    path = tmp_path / "a.sqlite"
    ledger_at(path, purse=1.0).reserve(0.7)  # never settled: the process is gone
    after = ledger_at(path, purse=1.0)
    with pytest.raises(OverBudget, match="purse 'p'"):
        after.reserve(0.4)
    after.settle(after.reserve(0.3), 0.2)
    with closing(sqlite3.connect(path)) as seen:
        assert seen.execute("select dollars from purses").fetchone() == (0.2,)


def test_money_of_another_purse_counts_in_none_but_its_own(tmp_path: Path, ledger_at: OpenLedger) -> None:
    path = tmp_path / "a.sqlite"
    others = ledger_at(path, run=10.0, purse=1.0, name="q")
    for _ in range(2):
        others.settle(others.reserve(0.25), 0.25)
    others.reserve(0.4)
    ours = ledger_at(path, run=10.0, purse=1.0)
    ours.settle(ours.reserve(0.6), 0.6)
    ours.reserve(0.4)  # to the last cent
    with pytest.raises(OverBudget, match="purse 'q'"):
        others.reserve(0.2)


def test_no_run_reserves_between_anothers_look_at_the_purse_and_its_reservation(
    tmp_path: Path, connected: Connected
) -> None:
    path = tmp_path / "a.sqlite"
    connection, other = connected(path), connected(path)
    other.execute("pragma busy_timeout = 0")
    refused: list[str] = []

    def barge_in(statement: str) -> None:
        if statement.startswith("insert into reserved"):
            try:
                other.execute("insert into reserved (purse, dollars) values ('p', 9)")
            except sqlite3.OperationalError as error:
                refused.append(str(error))

    connection.set_trace_callback(barge_in)
    Ledger(connection, "p", 1.0, 1.0).reserve(1.0)
    assert refused == ["database is locked"]


def test_money_is_never_neither_set_aside_nor_spent(tmp_path: Path, connected: Connected) -> None:
    """Not for the moment between the two writes either, in which a run may be killed."""
    path = tmp_path / "a.sqlite"
    connection, other = connected(path), connected(path)
    ledger = Ledger(connection, "p", 1.0, 1.0)
    held = ledger.reserve(0.6)
    seen: list[list[tuple[float]]] = []

    def look(statement: str) -> None:
        if statement.startswith("insert into purses"):
            seen.append(other.execute("select dollars from reserved").fetchall())

    connection.set_trace_callback(look)
    ledger.settle(held, 0.6)
    assert seen == [[(0.6,)]]


def test_what_is_written_beside_the_ledger_is_written_with_it_or_not_at_all(
    tmp_path: Path, ledger_at: OpenLedger
) -> None:
    path = tmp_path / "a.sqlite"
    ledger = ledger_at(path)
    held = ledger.reserve(0.6)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        ledger.settle(held, 0.5)
        raise ZeroDivisionError
    with closing(sqlite3.connect(path)) as seen:
        assert seen.execute("select dollars from reserved").fetchall() == [(0.6,)]
        assert seen.execute("select dollars from purses").fetchall() == []
        with ledger.transaction():
            ledger.settle(ledger.reserve(0.0), 0.5)
        assert seen.execute("select dollars from purses").fetchall() == [(0.5,)]
