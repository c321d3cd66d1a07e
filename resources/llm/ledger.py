"""The budget gate: what a request could cost at most is set aside before it is sent, and settled when it is answered.

Reservations live in the cache's file, so that runs sharing a purse cannot overshoot together. A request whose fate is
unknown (time-out, cut connection, killed process) stays counted at its most: the vendor may have charged it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class OverBudget(Exception):
    """The next request could pass a cap."""


@dataclass(frozen=True)
class Reservation:
    """Money set aside for one request or batch."""

    id: int
    dollars: float


class Ledger:
    """Spending of one run, and of the purse it shares."""

    def __init__(self, connection: sqlite3.Connection, purse: str, run_dollars: float, purse_dollars: float) -> None:
        self._connection = connection
        self._purse = purse
        self._run_dollars = run_dollars
        self._purse_dollars = purse_dollars
        self.spent = 0.0
        """Dollars this run is known to have spent."""
        self.unknown = 0.0
        """Most that requests of this run with an unknown fate may have cost."""
        self._held: dict[int, float] = {}

    @property
    def under_way(self) -> bool:
        """Whether money is set aside that may come back."""
        return bool(self._held)

    def reserve(self, dollars: float) -> Reservation:
        """Set money aside.

        Raises:
            OverBudget: when a cap could be passed; `under_way` says whether waiting may help.
        """
        if self.spent + self.unknown + sum(self._held.values()) + dollars > self._run_dollars:
            raise OverBudget(f"this run's cap of {self._run_dollars:g} dollars (compute.llm_run_dollars)")
        with self.transaction():
            if self._purse_total() + dollars > self._purse_dollars:
                raise OverBudget(
                    f"the cap of {self._purse_dollars:g} dollars of purse '{self._purse}' (compute.llm_purse_dollars)"
                )
            cursor = self._connection.execute(
                "insert into reserved (purse, dollars) values (?, ?)", (self._purse, dollars)
            )
        reservation = Reservation(cursor.lastrowid or 0, dollars)
        self.adopt(reservation)
        return reservation

    def adopt(self, reservation: Reservation) -> None:
        """Take over money that a killed run set aside for a batch which is still under way."""
        self._held[reservation.id] = reservation.dollars

    def settle(self, reservation: Reservation, dollars: float, unknown: float = 0.0) -> None:
        """The request was answered, or surely not charged (0); `unknown`: most that others of a batch may have cost."""
        self._close(reservation, dollars + unknown)
        self.spent += dollars
        self.unknown += unknown

    def lose(self, reservation: Reservation) -> None:
        """The request's fate is unknown: count it at its most."""
        self._close(reservation, reservation.dollars)
        self.unknown += reservation.dollars

    def _close(self, reservation: Reservation, dollars: float) -> None:
        with self.transaction():
            self._connection.execute("delete from reserved where id = ?", (reservation.id,))
            self._connection.execute(
                "insert into purses values (?, ?) on conflict(name) do update set dollars = dollars + excluded.dollars",
                (self._purse, dollars),
            )
        self._held.pop(reservation.id, None)

    def _purse_total(self) -> float:
        """Spent from the purse, and set aside by every run, living or killed."""
        query = (
            "select coalesce((select dollars from purses where name = :purse), 0) "
            "+ coalesce((select sum(dollars) from reserved where purse = :purse), 0)"
        )
        return self._connection.execute(query, {"purse": self._purse}).fetchone()[0]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written in this block is written whole or, on any exception, not at all; may be nested."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._connection.execute("rollback")
            raise
        self._connection.execute("commit")
