"""Dagster's instance, opened once its database can be: what is in the way is one sentence, before anything changes."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from glob import has_magic
from pathlib import Path
from urllib.parse import unquote

import dagster as dg
import sqlalchemy
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from resources.disk import DAMAGED_DATABASE
from resources.errors import BadInput, one_line

POSTGRES = "LORASCOPE_POSTGRES"
"""Environment variable: where the PostgreSQL of dagster.postgres.yaml is."""
MADE = ".made"
"""The file in a DAGSTER_HOME that says that its tables were made to the end."""


@contextmanager
def opened(folder: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of a DAGSTER_HOME.

    Raises:
        BadInput: when its PostgreSQL does not answer, its SQLite is damaged, held or another user's, or its name is one
            that Dagster takes for another.
    """
    _check_name(folder)
    _check_files(folder)
    _check_postgres(folder / "dagster.yaml")
    try:
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            yield instance
    except DatabaseError as error:
        said = _told(error, folder)
        if said is None:
            raise
        raise BadInput(said) from error


def _told(error: DatabaseError, folder: Path) -> str | None:
    """What to do about a file of SQLite; None when it is not to blame."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code in DAMAGED_DATABASE:
        return _damaged(folder, str(error.orig))
    if code == sqlite3.SQLITE_BUSY:
        return (
            f"a database of Dagster in {folder} is held by another process, such as a viewer or a backup: end that "
            "and run the same command again; what is finished is kept"
        )
    return None


def _damaged(folder: Path, how: str) -> str:
    return (
        f"a database of Dagster in {folder} is damaged ({how}): move that folder away and run the same command again; "
        "Dagster begins a new history of runs, and what is finished stays in the store"
    )


def _check_name(folder: Path) -> None:
    """Dagster finds its dagster.yaml by a glob, and without it turns telemetry on; SQLite's address unquotes names."""
    name = str(folder.absolute())
    if has_magic(name) or unquote(name) != name:
        raise BadInput(
            f"Dagster cannot keep its files in {name}: set LORASCOPE_HOME to a path without [, *, ? and codes like %41"
        )


def _check_files(folder: Path) -> None:
    """SQLite lets whoever may read a database leave a journal beside it, which its owner then cannot write."""
    for path in folder.rglob("*.db*"):
        if not os.access(path, os.W_OK, effective_ids=True) and _is_anothers(path):
            raise BadInput(
                f"{path} is another user's and cannot be written: several users of one home need PostgreSQL, see "
                "dagster.postgres.yaml; alone, set LORASCOPE_HOME to a folder of your own"
            )
    index = folder / "history" / "runs" / "index.db"
    # What a copy that ended early leaves; Dagster takes it for an older version's. Until MADE it is being filled.
    if (folder / MADE).exists() and index.exists() and not index.stat().st_size:
        raise BadInput(_damaged(folder, "index.db is empty"))


def _is_anothers(path: Path) -> bool:
    """A journal may be gone by now."""
    try:
        return path.stat().st_uid != os.geteuid()
    except FileNotFoundError:
        return False


def _check_postgres(settings: Path) -> None:
    """Dagster itself would try again and again, and end with a long stack trace."""
    if f"env: {POSTGRES}" not in settings.read_text():
        return
    address = os.environ.get(POSTGRES)
    refusal = _refusal(address) if address else "is not set"
    if refusal:
        raise BadInput(
            f"{settings} keeps runs in PostgreSQL, and {POSTGRES} {refusal}; dagster.postgres.yaml says how to set it"
        )


def _refusal(address: str) -> str:
    """Why nobody answers there; empty when somebody does."""
    try:
        with sqlalchemy.create_engine(address, poolclass=NullPool).connect():
            return ""
    except (SQLAlchemyError, ValueError, ImportError) as error:
        return f"leads to none: {one_line(str(error).splitlines()[0])}"
