"""What lies in an artifact's folder, as an object of its room's own type."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Artifact:
    """A finished artifact; its room's class says what can be read from it. Shown by where it lies."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> Self:
        """The artifact in a folder."""
        return cls(path)
