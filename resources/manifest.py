"""The manifest: how an artifact was made. A folder without one does not exist."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

FILE_NAME = "manifest.json"


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    """Bytes."""
    sha256: str


class Column(BaseModel):
    """One column of an artifact's table, as the UI shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: str
    description: str = ""


class Manifest(BaseModel):
    """What `lorascope show` and the UI print; from it alone one can tell what made the artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asset: str
    key: str
    code_version: int
    experiment: str
    """The experiment that computed it first; others may share it."""
    sections: dict[str, dict[str, JsonValue]]
    """Resolved config sections that entered the key."""
    section_versions: dict[str, str]
    inputs: dict[str, str]
    """Input asset -> its key."""
    files: dict[str, FileEntry]
    metrics: dict[str, JsonValue]
    """What the call measured: numbers, and small tables as lists of rows."""
    columns: list[Column]
    seconds: float
    """Wall time of the worker."""
    device: str
    packages: dict[str, str]
    created: str
    """UTC, ISO 8601."""
    cost_usd: float = 0.0
    """What paid requests of this run cost, US dollars."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact folder.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is damaged.
    """
    return Manifest.model_validate_json((folder / FILE_NAME).read_bytes())
