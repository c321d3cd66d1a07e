"""Rows as a text table for the terminal: every column that is shown can be read, and the others are named."""

import io
import shutil
import textwrap
from collections.abc import Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

WIDEST = 160
"""Characters across a table may take; a terminal or COLUMNS that is narrower decides."""
LONGEST, SHORTEST = 60, 16
"""Characters of a text: where there is room, and where a table would not fit otherwise."""
EDGES, BETWEEN = 2, 3
"""Characters that the frame takes around the columns and between them."""


def text_table(rows: Sequence[Mapping[str, object]], title: str = "") -> str:
    """The rows with their column names; floats at four digits. Columns for which there is no room are named below."""
    names = list(rows[0]) if rows else []
    cells = {name: [_cell(row.get(name)) for row in rows] for name in names}
    wanted = {name: min(LONGEST, max(map(cell_len, [name, *cells[name]]))) for name in names}
    text = {name for name in names[1:] if any(isinstance(row.get(name), str) for row in rows)}
    least = {name: min(SHORTEST, wanted[name]) if name in text else wanted[name] for name in names}
    for first in names[:1]:  # what a row is called is not cut, but may take several lines
        least[first] = min(LONGEST, max(cell_len(word) for cell in [first, *cells[first]] for word in cell.split(" ")))
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    while len(names) > 1 and EDGES + sum(least[name] + BETWEEN for name in names) > width:
        names.pop()
    widths = _fitted({name: wanted[name] for name in names}, least, width - EDGES - BETWEEN * len(names))
    table = Table(box=box.SIMPLE)
    for name in names:
        table.add_column(name, overflow="ellipsis", no_wrap=name != names[0], width=widths[name])
    for row in zip(*(cells[name] for name in names), strict=True):
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)  # a cell may hold "[asy]" or ":x:"
    console.print(table)
    assert isinstance(console.file, io.StringIO)  # made two lines above
    lines = [*filter(None, [title]), *(line.rstrip() for line in console.file.getvalue().splitlines())]
    further = list(rows[0])[len(names) :] if rows else []
    note = textwrap.wrap(f"... and {', '.join(further)}: a wider terminal or --json shows them", width - 2)
    return "\n".join(["\n".join(lines).rstrip(), *(f"  {line}" for line in note if further)])


def _fitted(wanted: dict[str, int], least: Mapping[str, int], room: int) -> dict[str, int]:
    """The widths that add up to the room, the widest columns being narrowed first."""
    widths = dict(wanted)
    while sum(widths.values()) > room and any(widths[name] > least[name] for name in widths):
        widths[max((name for name in widths if widths[name] > least[name]), key=lambda name: widths[name])] -= 1
    return widths


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", "↵")
