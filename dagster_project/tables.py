"""Rows as a text table for the terminal."""

import io
import shutil
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

WIDEST = 160
"""Characters across a table may take; a terminal or COLUMNS that is narrower decides."""


def text_table(rows: Sequence[Mapping[str, object]], title: str = "") -> str:
    """The rows with their column names; floats at four digits."""
    table = Table(box=box.SIMPLE, title=title or None, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name, overflow="ellipsis", max_width=60)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)  # a cell may hold "[asy]" or ":x:"
    console.print(table)
    assert isinstance(console.file, io.StringIO)  # made two lines above
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
