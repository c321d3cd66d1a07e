"""The report on disk: one page, the same as JSON, figures and tables as files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

PAGE, REPORT, FIGURES, TABLES = "index.html", "report.json", "figures", "tables"


@dataclass(frozen=True)
class PaperReport:
    """A written report."""

    folder: Path

    @classmethod
    def open(cls, path: Path) -> "PaperReport":
        """Open an artifact folder."""
        return cls(path)

    @property
    def page(self) -> Path:
        """What a browser opens."""
        return self.folder / PAGE

    def report(self) -> dict[str, Any]:
        """Claims, tables and examples as JSON."""
        return json.loads((self.folder / REPORT).read_text())

    def table(self) -> pa.Table:
        """One row per claim: published, measured, interval, verdict."""
        return pa.Table.from_pylist(self.report()["claims"])
