"""The dashboard on disk: a static site, and its list of units as Parquet for notebooks."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = "features.parquet"
PAGE = "index.html"


@dataclass(frozen=True)
class FeatureDashboard:
    """A built site."""

    folder: Path

    @classmethod
    def open(cls, path: Path) -> "FeatureDashboard":
        """Open an artifact folder."""
        return cls(path)

    @property
    def page(self) -> Path:
        """What a browser opens."""
        return self.folder / PAGE

    def table(self) -> pa.Table:
        """One row per unit: explanation, class, score, category, density."""
        return pq.read_table(self.folder / FEATURES)
