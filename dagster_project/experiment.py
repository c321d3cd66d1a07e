"""An experiment is one YAML file: what differs from its parent, resolved against every room's config.

Nothing here knows Dagster, so that `lorascope plan` answers at once.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from dagster_project.rooms import SECTIONS
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.keys import section_version
from resources.section import Section
from resources.sources import fingerprints
from resources.strict_yaml import Document, read_yaml

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Partition keys: no comma (Dagster issues 32183, 15105), slash or space."""
OWN_KEYS = ("extends", "description", "materialize")
ALL_SECTIONS: Mapping[str, type[Section]] = {**SECTIONS, "compute": ComputeConfig}


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment: every knob of every room has its value."""

    name: str
    description: str
    automatic: bool
    """`materialize: auto`: the sensor runs it when the file is new or edited."""
    files: tuple[Path, ...]
    """The file itself, then its ancestors."""
    sections: Mapping[str, Section]
    compute: ComputeConfig

    @property
    def parent(self) -> str | None:
        """Name of the experiment it extends."""
        return self.files[1].stem if len(self.files) > 1 else None

    def values(self, section: str) -> dict[str, JsonValue]:
        """The resolved section as JSON."""
        return self.sections[section].model_dump(mode="json")

    @cached_property
    def versions(self) -> dict[str, str]:
        """Data version of every section that can enter a key."""
        return {
            name: section_version(name, self.values(name), fingerprints(section.sources()))
            for name, section in self.sections.items()
        }


class Experiments:
    """The folder of experiment files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Every file's name, valid or not."""
        return sorted(path.stem for path in self.folder.glob("*.yaml"))

    def load(self, name: str) -> Experiment:
        """Resolve one experiment.

        Raises:
            BadInput: with file, line, the offending key and the nearest valid one.
        """
        check_name(name, self.folder)
        chain = self._chain(name)
        return _resolve(name, chain)

    def _chain(self, name: str) -> list[Document]:
        """The file, its parent, and so on to the root."""
        chain: list[Document] = []
        seen = [name]
        while True:
            document = read_yaml(self._path(name, chain))
            chain.append(document)
            parent = document.values.get("extends")
            if parent is None:
                return chain
            place = f"{document.path}:{document.line(('extends',))}"
            if not isinstance(parent, str):
                raise BadInput(f"{place}: `extends` takes the name of one experiment")
            if parent in seen:
                raise BadInput(f"{place}: `extends` goes round in a circle: {' -> '.join([*seen, parent])}")
            seen.append(parent)
            name = parent

    def _path(self, name: str, chain: list[Document]) -> Path:
        path = self.folder / f"{name}.yaml"
        if path.is_file() and NAME.fullmatch(name):
            return path
        known = self.names()
        place = f"{chain[-1].path}:{chain[-1].line(('extends',))}: `extends: {name}`" if chain else f"'{name}'"
        raise BadInput(f"{place} is no experiment in {self.folder}{_nearest(name, known)}")


def check_name(name: str, folder: Path) -> None:
    """Refuse a file name that cannot be a partition key.

    Raises:
        BadInput: for slashes, spaces, commas and other surprises.
    """
    if not NAME.fullmatch(name):
        raise BadInput(
            f"{folder / name}.yaml: '{name}' cannot name an experiment; use letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit, at most 100"
        )


def _resolve(name: str, chain: list[Document]) -> Experiment:
    sections: dict[str, dict[str, object]] = {}
    origin: dict[tuple[str, str], Document] = {}
    for document in reversed(chain):
        for key, value in document.values.items():
            if key in OWN_KEYS:
                continue
            for field, given in _section_values(document, key, value).items():
                sections.setdefault(key, {})[field] = given
                origin[key, field] = document
    typed = {key: _typed(key, sections.get(key, {}), origin, chain[0]) for key in ALL_SECTIONS}
    compute = typed.pop("compute")
    assert isinstance(compute, ComputeConfig)  # ALL_SECTIONS says so
    own = chain[0]
    return Experiment(
        name=name,
        description=_own_text(own, "description"),
        automatic=_automatic(own),
        files=tuple(document.path for document in chain),
        sections=typed,
        compute=compute,
    )


def _section_values(document: Document, key: str, value: object) -> dict[str, object]:
    place = f"{document.path}:{document.line((key,))}"
    if key not in ALL_SECTIONS:
        known = [*ALL_SECTIONS, *OWN_KEYS]
        raise BadInput(f"{place}: unknown section '{key}'{_nearest(key, known)}")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{place}: '{key}' is a section: put its knobs below it, indented")
    for field in value:
        known = list(ALL_SECTIONS[key].model_fields)
        if field not in known:
            line = document.line((key, field))
            raise BadInput(f"{document.path}:{line}: unknown key '{key}.{field}'{_nearest(field, known)}")
    return value


def _typed(key: str, values: dict[str, object], origin: dict[tuple[str, str], Document], own: Document) -> Section:
    try:
        return ALL_SECTIONS[key].model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        document = origin.get((key, field), own)
        line = document.line((key, *first["loc"]))
        where = ".".join([key, *map(str, first["loc"])])
        raise BadInput(f"{document.path}:{line}: {where}: {_message(first)}") from error


def _message(error: ErrorDetails) -> str:
    """Pydantic's message, with what was given."""
    given = error.get("input")
    shown = "" if isinstance(given, dict) else f" (given: {str(given)[:80]!r})"
    return f"{error['msg'].removeprefix('Value error, ')}{shown}"


def _own_text(document: Document, key: str) -> str:
    value = document.values.get(key)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{document.path}:{document.line((key,))}: `{key}` takes text")
    return value or ""


def _automatic(document: Document) -> bool:
    value = document.values.get("materialize")
    if value not in (None, "auto", "manual"):
        place = f"{document.path}:{document.line(('materialize',))}"
        raise BadInput(f"{place}: `materialize` is auto or manual (given: {str(value)[:80]!r})")
    return value == "auto"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(known)}"
