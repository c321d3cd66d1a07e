"""An experiment is one YAML file: what differs from its parent, resolved against every room's config.

Nothing here knows Dagster, so that `lorascope plan` answers at once.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue, ValidationError

from assets.sections import SECTIONS
from resources.compute import ComputeConfig
from resources.errors import SHOWN, BadInput, nearest, one_line, quoted, told
from resources.fingerprints import fingerprints
from resources.keys import FileState, file_state, section_version
from resources.section import Section
from resources.sources import check_source
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
        """Data version of every section that can enter a key, as it was when first asked for."""
        return {name: self.version(name) for name in self.sections}

    def version(self, section: str) -> str:
        """Data version of a section, with what the folders that it names hold at this moment."""
        return section_version(section, self.values(section), fingerprints(self.sections[section].sources()))


class Experiments:
    """The folder of experiment files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._documents: dict[tuple[Path, FileState], Document] = {}

    def names(self) -> list[str]:
        """Every file's name, valid or not; what editors and copies hide beside it is none."""
        return sorted(path.stem for path in self.folder.glob("[!.]*.yaml"))

    def names_that_keep(self, at_stake: Collection[object]) -> list[str]:
        """Every file's name, for whoever removes what belongs to no file.

        Raises:
            BadInput: when the folder is missing, or empty although something is at stake: it is then more likely
                mistyped or not mounted than given up.
        """
        present, names = self.folder.is_dir(), self.names()
        if names or (present and not at_stake):
            return names
        raise BadInput(
            f"{self.folder} {'holds no experiment' if present else 'is no folder'}, so every artifact and partition "
            "would be removed: mount it, or set LORASCOPE_EXPERIMENTS to the folder of your experiments"
        )

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
            document = self._document(self._path(name, chain))
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

    def _document(self, path: Path) -> Document:
        """The parsed file; a parent of a thousand experiments is parsed once, and again when it is edited."""
        try:
            known = path, file_state(path)
        except OSError:
            return read_yaml(path)
        if known not in self._documents:
            self._documents[known] = read_yaml(path)
        return self._documents[known]

    def _path(self, name: str, chain: list[Document]) -> Path:
        path = self.folder / f"{name}.yaml"
        if NAME.fullmatch(name) and path.is_file():
            return path
        known = self.names()
        shown = quoted(name)
        if chain:
            shown = f"{chain[-1].path}:{chain[-1].line(('extends',))}: `extends: {shown[1:-1]}`"
        raise BadInput(f"{shown} is no experiment in {self.folder}{nearest(name, known)}")


def check_name(name: str, folder: Path) -> None:
    """Refuse a file name that cannot be a partition key.

    Raises:
        BadInput: for slashes, spaces, commas and other surprises.
    """
    if not NAME.fullmatch(name):
        raise BadInput(
            f"{one_line(str(folder / name))}.yaml: {quoted(name)} cannot name an experiment; use letters, digits, "
            "'-', '_' and '.', beginning with a letter or digit, at most 100"
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
        description=_description(own),
        automatic=_automatic(own),
        files=tuple(document.path for document in chain),
        sections=typed,
        compute=compute,
    )


def _section_values(document: Document, key: str, value: object) -> dict[str, object]:
    place = f"{document.path}:{document.line((key,))}"
    if key not in ALL_SECTIONS:
        owners = [name for name, config in ALL_SECTIONS.items() if key in config.model_fields]
        advice = f"; it is a knob of {' and '.join(owners)}: put it below, indented" if owners else ""
        known = [*ALL_SECTIONS, *OWN_KEYS]
        raise BadInput(f"{place}: unknown section {quoted(key)}{advice or nearest(key, known)}")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{place}: '{key}' is a section: put its knobs below it, indented")
    for field in value:
        known = list(ALL_SECTIONS[key].model_fields)
        if field not in known:
            line = document.line((key, field))
            raise BadInput(f"{document.path}:{line}: unknown key {quoted(f'{key}.{field}')}{nearest(field, known)}")
    return value


def _typed(key: str, values: dict[str, object], origin: dict[tuple[str, str], Document], own: Document) -> Section:
    try:
        section = ALL_SECTIONS[key].model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"] or _named_in(first["msg"], values)
        document = origin.get((key, str(place[0])) if place else (key, ""), own)
        line = document.line((key, *place))
        where = ".".join([key, *map(str, place)])
        raise BadInput(f"{document.path}:{line}: {one_line(where)}: {told(first)}") from error
    for name in section.sources():
        _check_source(key, name, values, origin, own)
    return section


def _named_in(message: str, values: dict[str, object]) -> tuple[str, ...]:
    """The knob whose text a message about the whole section repeats."""
    found = (field for field, given in values.items() if isinstance(given, str) and given and given[:SHOWN] in message)
    return tuple(found)[:1]


def _check_source(
    key: str, name: str, values: dict[str, object], origin: dict[tuple[str, str], Document], own: Document
) -> None:
    try:
        check_source(name)
    except BadInput as error:
        field = next((field for field, given in values.items() if name in str(given)), "")
        document = origin.get((key, field), own)
        raise BadInput(f"{document.path}:{document.line((key, field))}: {key}.{field}: {error}") from error


def _description(document: Document) -> str:
    value = document.values.get("description")
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{document.path}:{document.line(('description',))}: `description` takes text")
    return value or ""


def _automatic(document: Document) -> bool:
    value = document.values.get("materialize")
    if value not in (None, "auto", "manual"):
        place = f"{document.path}:{document.line(('materialize',))}"
        raise BadInput(f"{place}: `materialize` is auto or manual (given: {quoted(str(value))})")
    return value == "auto"
