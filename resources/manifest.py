"""The manifest: how an artifact was made. A folder without one does not exist."""

import json
from pathlib import Path

from pydantic import BaseModel, JsonValue

from resources.keys import bytes_digest

FILE_NAME = "manifest.json"


class FileEntry(BaseModel, frozen=True, extra="forbid"):
    """One file of an artifact."""

    size: int
    """Bytes."""
    sha256: str


class Column(BaseModel, frozen=True, extra="forbid"):
    """One column of an artifact's table, as the UI shows it."""

    name: str
    type: str
    description: str = ""


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """What `lorascope show` and the UI print; from it alone one can tell what made the artifact."""

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

    def at(self, place: str) -> JsonValue:
        """A number or table of the metrics by its place, such as `held_out/fvu`; None where there is none."""
        value: JsonValue = self.metrics
        for part in place.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def rows(self, table: str) -> list[dict[str, JsonValue]]:
        """A table among the metrics; empty where there is none."""
        found = self.metrics.get(table)
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put the manifest into its folder, under a first line with the checksum of the others.

    Raises:
        ValueError: for NaN or infinity among the metrics, which no JSON can hold.
    """
    values = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    rest = values.removeprefix("{\n").encode()
    (folder / FILE_NAME).write_bytes(_first_line(rest) + rest)


def _first_line(rest: bytes) -> bytes:
    return f'{{ "checksum": "{bytes_digest(rest)}",\n'.encode()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact folder.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is damaged.
    """
    first, newline, rest = (folder / FILE_NAME).read_bytes().partition(b"\n")
    if first + newline != _first_line(rest):
        raise ValueError(f"{folder / FILE_NAME} differs from its checksum")
    return Manifest.model_validate_json(b"{" + rest)
