"""What the Dagster UI shows of an artifact, read from its manifest alone so that a cache hit stays cheap."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import JsonValue

from dagster_project.serve import page_address
from resources.charts import FOLDER
from resources.manifest import Manifest

LARGEST_TABLE = 200
"""Rows of a table shown inline, the paper's categories of three kinds of units among them; `lorascope show` prints
longer ones."""
CURVE = "_curve"
"""Ending of metrics that a chart shows better than a table."""

MADE = {"experiment", "created", "key", "code_version", "inputs", "device", "packages"}
"""Fields of the manifest shown together."""


def metadata(manifest: Manifest, folder: Path, cache: Literal["hit", "computed"]) -> dict[str, dg.MetadataValue]:
    """Plots first, then numbers and tables, then where the artifact comes from."""
    return {**charts(folder), **_measured(manifest.metrics), **_provenance(manifest, folder, cache)}


def _measured(metrics: Mapping[str, JsonValue]) -> dict[str, dg.MetadataValue]:
    shown: dict[str, dg.MetadataValue] = {}
    for name, value in _flat(metrics):
        if name.endswith(CURVE):
            continue
        if isinstance(value, bool | str):
            shown[name] = dg.MetadataValue.text(str(value))
        elif isinstance(value, int):
            shown[name] = dg.MetadataValue.int(value)
        elif isinstance(value, float):
            shown[name] = dg.MetadataValue.float(float(f"{value:.5g}"))
        elif isinstance(value, list) and 0 < len(value) <= LARGEST_TABLE:
            rows = [row for row in value if isinstance(row, dict)]
            shown[name] = table_metadata(rows) if rows else dg.MetadataValue.text(", ".join(map(str, value)))
    return shown


def _flat(metrics: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """Nested groups of numbers one by one, as `held_out/fvu`."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{inner}", found) for inner, found in _flat(value))
        else:
            yield name, value


def table_metadata(rows: Iterable[Mapping[str, JsonValue]]) -> dg.TableMetadataValue:
    """Rows as a table of the UI."""
    return dg.MetadataValue.table([dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows])


def _cell(value: JsonValue) -> str | int | float | bool | None:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value) if isinstance(value, dict) else value


def charts(folder: Path) -> dict[str, dg.MetadataValue]:
    """The PNGs of a folder, drawn inline."""
    shown: dict[str, dg.MetadataValue] = {}
    for path in sorted((folder / FOLDER).glob("*.png")):
        shown |= picture(path.stem, base64.b64encode(path.read_bytes()).decode())
    return shown


def picture(name: str, png_base64: str) -> dict[str, dg.MetadataValue]:
    """A PNG that the UI shows inline; of a running job as of a finished one under the same key."""
    # Spaces: the column breaks lines there, and a long name with "_" runs into its value.
    return {f"plot/{name.replace('_', ' ')}": dg.MetadataValue.md(f"![{name}](data:image/png;base64,{png_base64})")}


def _provenance(manifest: Manifest, folder: Path, cache: str) -> dict[str, dg.MetadataValue]:
    columns = [dg.TableColumn(column.name, column.type, column.description) for column in manifest.columns]
    shown: dict[str, dg.MetadataValue] = {
        "cache": dg.MetadataValue.text(cache),
        "config": dg.MetadataValue.json(manifest.sections),
        # Every entry counts: Dagster stores all of them three times, and reads them again for every asset downstream.
        "made": dg.MetadataValue.json(manifest.model_dump(mode="json", include=MADE)),
        "seconds": dg.MetadataValue.float(round(manifest.seconds, 2)),
        "bytes": dg.MetadataValue.int(manifest.size),
        "folder": dg.MetadataValue.path(folder),
    }
    if manifest.columns:
        shown["dagster/column_schema"] = dg.MetadataValue.table_schema(dg.TableSchema(columns))
    if (folder / "index.html").exists():
        # Browsers refuse links from http to file://, so this one works while `lorascope serve` runs.
        shown["page"] = dg.MetadataValue.url(page_address(manifest.asset, manifest.key))
    return shown
