"""YAML as experiments need it: mappings, lists and scalars with line numbers, and nothing that can surprise.

Scalars stay text until pydantic types them, so `1e-3`, `0.001` and `"0.001"` are one value. Tags, anchors, aliases
and merge keys are refused: they are how YAML files run code or explode.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from resources.errors import BadInput

Scalar = str | None
Value = "Scalar | list[Value] | dict[str, Value]"
Location = tuple[str | int, ...]
LARGEST = 1_000_000
"""Bytes; an experiment is a page of text."""


@dataclass(frozen=True)
class Document:
    """A parsed file: its values, and where each one stands."""

    path: Path
    values: dict[str, object]
    lines: dict[Location, int]
    """Location of a key or list item -> its line, from 1."""

    def line(self, location: Location) -> int:
        """The line of the nearest enclosing thing that has one."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read_yaml(path: Path) -> Document:
    """Parse a file whose top is a mapping.

    Raises:
        BadInput: when the file is unreadable, not YAML, empty, not a mapping, or uses a refused feature.
    """
    text = _text(path)
    lines: dict[Location, int] = {}
    try:
        _refuse_features(path, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadInput(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {problem}") from error
    except RecursionError as error:
        raise BadInput(f"{path}:1: nested too deeply") from error
    if node is None:
        raise BadInput(f"{path}:1: the file is empty; write at least `extends: mini`")
    if not isinstance(node, yaml.MappingNode):
        raise BadInput(f"{path}:{node.start_mark.line + 1}: expected `section:` lines at the top level")
    values = _value(path, node, (), lines)
    assert isinstance(values, dict)  # a MappingNode gives a dict
    return Document(path, values, lines)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput(f"{path}:1: larger than {LARGEST} bytes, which is no experiment")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}:1: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


def _refuse_features(path: Path, text: str) -> None:
    """Stop before composing: an alias bomb is harmless as long as nobody expands it."""
    documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"{path}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise BadInput(f"{place}: anchors and aliases are not supported; use `extends:` to share values")
        if getattr(event, "tag", None) not in (None, "!"):
            raise BadInput(f"{place}: the tag {event.tag} is not supported; write plain values")
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise BadInput(f"{place}: a second document begins here; one file is one experiment")


def _value(path: Path, node: yaml.Node, location: Location, lines: dict[Location, int]) -> object:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(path, node, location, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_value(path, item, (*location, i), lines) for i, item in enumerate(node.value)]
    plain_null = node.style is None and node.value in ("", "~", "null", "Null", "NULL")
    return None if plain_null else node.value


def _mapping(path: Path, node: yaml.MappingNode, location: Location, lines: dict[Location, int]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key_node, value_node in node.value:
        place = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise BadInput(f"{place}: a key must be a word")
        key = key_node.value
        if key in values:
            raise BadInput(f"{place}: '{key}' stands twice; keep one")
        if key == "<<":
            raise BadInput(f"{place}: merge keys are not supported; use `extends:` to share values")
        lines[(*location, key)] = key_node.start_mark.line + 1
        values[key] = _value(path, value_node, (*location, key), lines)
    return values
