"""YAML as experiments need it: mappings, lists and scalars with line numbers, and nothing that can surprise.

Scalars stay text until pydantic types them, so `1e-3`, `0.001` and `"0.001"` are one value. Tags, anchors, aliases
and merge keys are refused: they are how YAML files run code or explode.
"""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import yaml

from resources.errors import BadInput, one_line, quoted

Location = tuple[str | int, ...]
LARGEST = 100_000
"""Bytes; an experiment is a page of text, and parsing this much takes a second."""
HARMLESS = "\n\t\u200c\u200d"
"""Control characters that text needs: line ends, tabs, and the joiners of Persian, Hindi and emoji."""
DEEPEST = 20
"""Levels of nesting; an experiment has three."""

UNENDED = ("stream end", "end of stream", "expected ':'")
"""Of the parser's messages: what was begun and not ended; the line that helps is the one where it began."""
ADVICE = {
    "mapping values are not allowed here": "indent it as the line above, or put a text that holds ': ' in quotes",
    "found character '\\t'": "indent with spaces, not tabs",
    "could not find expected ':'": "after a key comes a colon",
    "expected <block end>": "indent it as the lines above",
}


class Empty(BadInput):
    """Nothing but comments and space."""


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
        node = _Loader(path, text).get_single_node()
    except yaml.YAMLError as error:
        raise BadInput(f"{path}:{_told(error)}") from error
    if node is None:
        raise Empty(f"{path}:1: the file is empty; an experiment says at least `extends: mini`")
    if not isinstance(node, yaml.MappingNode):
        raise BadInput(f"{path}:{node.start_mark.line + 1}: expected `section:` lines at the top level")
    values = _value(path, node, (), lines)
    assert isinstance(values, dict)  # a MappingNode gives a dict
    return Document(path, values, lines)


def _told(error: yaml.YAMLError) -> str:
    """The line, what the parser says of it, and what is to be done."""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    if any(end in problem for end in UNENDED):
        mark = getattr(error, "context_mark", None) or mark
    advice = next((f"; {what}" for said, what in ADVICE.items() if said in problem), "")
    return f"{mark.line + 1 if mark else 1}: not YAML: {one_line(problem)}{advice}"


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput(f"{path}:1: larger than {LARGEST} bytes, which is no experiment")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}:1: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


class _Loader(yaml.SafeLoader):
    """Looks at each event before it is composed: an alias bomb is harmless as long as nobody expands it."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self._path, self._depth, self._documents = path, 0, 0

    def get_event(self) -> yaml.Event:
        event = super().get_event()
        self._refuse_features(event)
        return event

    def _refuse_features(self, event: yaml.Event) -> None:
        place = f"{self._path}:{event.start_mark.line + 1}"
        self._depth += isinstance(event, yaml.CollectionStartEvent)
        self._depth -= isinstance(event, yaml.CollectionEndEvent)
        if self._depth > DEEPEST:
            raise BadInput(f"{place}: nested too deeply; an experiment has sections, knobs and lists")
        if getattr(event, "anchor", None):
            raise BadInput(f"{place}: anchors and aliases are not supported; experiments share values by `extends:`")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise BadInput(f"{place}: the tag {quoted(str(tag))} is not supported; write plain values")
        if isinstance(event, yaml.ScalarEvent):
            _refuse_hidden(place, event.value)
        self._documents += isinstance(event, yaml.DocumentStartEvent)
        if self._documents > 1:
            raise BadInput(f"{place}: a second document begins here; one file is one experiment")


def _refuse_hidden(place: str, text: str) -> None:
    """What no editor shows can mean something else than it looks like, and breaks terminals, paths and databases."""
    for character in text:
        if unicodedata.category(character) == "Cs":
            raise BadInput(f"{place}: {quoted(text)} holds half a character (U+{ord(character):04X}); write it whole")
        if unicodedata.category(character) in ("Cc", "Cf") and character not in HARMLESS:
            raise BadInput(f"{place}: {quoted(text)} holds the control character U+{ord(character):04X}; take it out")


def _value(path: Path, node: yaml.Node, location: Location, lines: dict[Location, int]) -> object:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(path, node, location, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_value(path, item, (*location, i), lines) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)  # YAML has three kinds
    plain_null = node.style is None and node.value in ("", "~", "null", "Null", "NULL")
    return None if plain_null else node.value


def _mapping(path: Path, node: yaml.MappingNode, location: Location, lines: dict[Location, int]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key_node, value_node in node.value:
        place = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise BadInput(f"{place}: a key must be a word")
        key = key_node.value
        if any(character in key for character in "\n\t"):
            raise BadInput(f"{place}: the key {quoted(key)} holds a control character; a key is one word")
        if key in values:
            raise BadInput(f"{place}: {quoted(key)} stands twice; keep one")
        if key == "<<":
            raise BadInput(f"{place}: merge keys are not supported; experiments share values by `extends:`")
        lines[(*location, key)] = key_node.start_mark.line + 1
        values[key] = _value(path, value_node, (*location, key), lines)
    return values
