"""The report on disk: one page, the same as JSON, figures and tables as files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from resources.artifact import Artifact

PAGE, REPORT, FIGURES, TABLES = "index.html", "report.json", "figures", "tables"


class PaperReport(Artifact):
    """A written report."""

    @property
    def page(self) -> Path:
        """What a browser opens."""
        return self.path / PAGE

    def report(self) -> dict[str, Any]:
        """Claims, tables and examples as JSON."""
        return json.loads((self.path / REPORT).read_text(encoding="utf-8"))

    def table(self) -> pa.Table:
        """One row per claim: published, measured, interval, verdict."""
        return pa.Table.from_pylist(self.report()["claims"])
