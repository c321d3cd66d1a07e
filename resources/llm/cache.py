"""Every answer that was ever paid for, by the hash of what was asked: one SQLite file per installation.

A row is written before its answer is parsed, in its own transaction, so that a kill at any moment costs at most the
requests under way. Values are JSON; keys and headers are never stored.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from resources.disk import DAMAGED_DATABASE, one_machine
from resources.errors import BadInput
from resources.llm.ledger import Reservation
from resources.whole import whole

FILE_NAME = "llm_cache.sqlite"
BUSY_S = 60.0
"""Seconds to wait for another process's write."""
TOGETHER = 500
"""Imported answers, some 10 MB, that are written in one transaction; runs that ask meanwhile write in between."""
_TAKEN = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SCHEMA = """
create table if not exists responses (
    key text primary key, provider text not null, model text not null, base_url text not null,
    prompt_version text not null, request text not null, response text not null,
    input_tokens integer not null, output_tokens integer not null, dollars real not null, created real not null
);
create table if not exists batches (
    id text primary key, endpoint text not null, handle text not null, keys text not null,
    reservation integer not null, dollars real not null, created real not null
);
create table if not exists purses (name text primary key, dollars real not null);
create table if not exists reserved (id integer primary key, purse text not null, dollars real not null);
"""


@dataclass(frozen=True)
class Stored:
    """One answered request: a row of `responses`, its columns in the same order."""

    key: str
    provider: str
    model: str
    base_url: str
    prompt_version: str
    request: str
    """JSON: system, user, schema, settings, sample, attempt."""
    response: str
    """JSON of pydantic-ai's ModelResponse, with the vendor's usage."""
    input_tokens: int
    output_tokens: int
    dollars: float
    created: float
    """Seconds since 1970."""


_INSERT = f"insert or ignore into responses values ({','.join('?' * len(fields(Stored)))})"  # noqa: S608


@dataclass(frozen=True)
class SentBatch:
    """A batch whose results have not been collected."""

    id: str
    """The vendor's, or a name of our own until it is confirmed."""
    handle: str
    """JSON of pydantic-ai's Batch; empty until the vendor has confirmed it."""
    keys: list[str]
    """Cache keys of its requests."""
    held: Reservation
    """Its money."""
    asked: float
    """When it was asked for, in seconds since 1970."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or make the file; several processes may use it at once.

    Raises:
        BadInput: when it is something else, or damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    with ExitStack() as unless_usable:
        unless_usable.callback(connection.close)
        try:
            _set_journal(connection, "wal" if one_machine(path.parent) else "delete")
            # Survives a killed process; only a power cut could lose the last rows.
            connection.execute("pragma synchronous=normal")
            connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in DAMAGED_DATABASE:
                raise
            raise BadInput(f"{path} is no response cache ({error}): move it away to begin a new one") from error
        unless_usable.pop_all()
    return connection


def _set_journal(connection: sqlite3.Connection, mode: Literal["wal", "delete"]) -> None:
    """A write-ahead log is fast, but several machines would corrupt the file by it (https://sqlite.org/wal.html).

    SQLite's own patience leaves out the switch of a new file to another mode, while others open it too.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute(f"pragma journal_mode={mode}")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _TAKEN or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class ResponseCache:
    """Answers by key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = connect(path)

    def get(self, key: str) -> str | None:
        """The stored response, if the request was ever answered."""
        row = self.connection.execute("select response from responses where key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, stored: Stored) -> None:
        """Keep an answer; the first one wins."""
        self.connection.execute(_INSERT, astuple(stored))

    def put_all(self, answers: Sequence[Stored]) -> int:
        """Keep answers that came together, all or none; returns how many were new."""
        with self.connection:  # which commits, or takes back
            self.connection.execute("begin immediate")
            return self.connection.executemany(_INSERT, [astuple(stored) for stored in answers]).rowcount

    def rows(self) -> Iterator[Stored]:
        """Every answer, in the order in which they came; sorting them would take as much room again in `/tmp`."""
        for row in self.connection.execute("select * from responses order by rowid"):
            yield Stored(*row)

    def add_batch(self, batch: SentBatch, endpoint: str) -> None:
        """Remember a batch that is about to be sent, so that a restart looks for it."""
        keys = json.dumps(batch.keys)
        row = (batch.id, endpoint, batch.handle, keys, batch.held.id, batch.held.dollars, batch.asked)
        self.connection.execute("insert into batches values (?, ?, ?, ?, ?, ?, ?)", row)

    def confirm_batch(self, batch: SentBatch, batch_id: str, handle: str) -> SentBatch:
        """Remember what the vendor calls it."""
        query = "update batches set id = ?, handle = ? where id = ?"
        self.connection.execute(query, (batch_id, handle, batch.id))
        return replace(batch, id=batch_id, handle=handle)

    def batches(self, endpoint: str) -> list[SentBatch]:
        """The batches under way at an endpoint."""
        query = (
            "select id, handle, keys, reservation, dollars, created from batches where endpoint = ? order by created"
        )
        rows = self.connection.execute(query, (endpoint,))
        return [
            SentBatch(batch_id, handle, json.loads(keys), Reservation(held, dollars), asked)
            for batch_id, handle, keys, held, dollars, asked in rows
        ]

    def forget_batch(self, batch_id: str) -> None:
        """The batch has been collected."""
        self.connection.execute("delete from batches where id = ?", (batch_id,))

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


def list_cache(path: Path) -> list[dict[str, Any]]:
    """Answers, tokens and dollars per provider, model and prompt version; for `lorascope cache list`."""
    if not path.is_file():
        return []
    query = (
        "select provider, model, prompt_version, count(*) as answers, sum(input_tokens) as input_tokens, "
        "sum(output_tokens) as output_tokens, sum(dollars) as dollars from responses group by 1, 2, 3 order by 1, 2, 3"
    )
    with closing(connect(path)) as connection:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def export_cache(path: Path, out: Path) -> int:
    """Write every answer as one JSON line, to a whole file or to a pipe; returns how many.

    Raises:
        BadInput: when there is no cache, or `out` cannot be written; a file that is there stays as it was then.
    """
    if not path.is_file():
        raise BadInput(f"there is no response cache at {path}: nothing has been asked yet")
    count = 0
    try:
        with (
            closing(ResponseCache(path)) as cache,
            nullcontext(out) if out.exists() and not out.is_file() else whole(out) as target,
            target.open("w", encoding="utf-8") as file,
        ):
            for stored in cache.rows():
                file.write(json.dumps(asdict(stored), ensure_ascii=False) + "\n")
                count += 1
    except OSError as error:
        raise BadInput(f"{out} cannot be written ({error.strerror}): name a file where there is room for it") from error
    return count


def import_cache(path: Path, source: Path) -> int:
    """Add the answers of an exported file; returns how many were new.

    Raises:
        BadInput: when it is no text file or a line is not an answer; those long before it stay, and are not new the
            next time.
    """
    answers = (_imported(line, f"{source}:{number}") for number, line in enumerate(_lines(source), 1))
    with closing(ResponseCache(path)) as cache:
        return sum(cache.put_all(part) for part in iter(lambda: list(islice(answers, TOGETHER)), []))


def _lines(source: Path) -> Iterator[str]:
    try:
        with source.open(encoding="utf-8") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise BadInput(f"{source}: not UTF-8 text, as a file of `lorascope cache export` is") from error


def _imported(line: str, place: str) -> Stored:
    try:
        values = json.loads(line)
        stored = Stored(**values)
        for text in (stored.request, stored.response):
            json.loads(text)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{place}: not a line of an exported response cache ({error})") from error
    return stored
