"""The two ways a job ends badly that a user can act on; everything else is a bug and keeps its traceback."""

import difflib
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class BadInput(ValueError):
    """What the user gave cannot be used: one sentence saying what, where and what to do. Never retried."""


class Interrupted(RuntimeError):
    """The work was stopped from outside after saving its state; running it again goes on from there."""


SHOWN = 80
"""Characters of what a user wrote that a message repeats."""

NAME_LENGTH = 200
"""Characters of a wrong key that are compared with the known ones."""
_LOOK_ALIKES = dict(zip("аеорсухікνοκα", "aeopcyxikvoka", strict=True))
"""Cyrillic and Greek letters that look Latin."""


def printable(text: str, kept: str = "") -> str:
    """The text with every character escaped that is not printable, but for those of `kept`."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, longest: int = SHOWN * 4) -> str:
    """The text cut to `longest` characters, with everything that is not printable escaped."""
    shown = printable(text[:longest])
    return shown if len(text) <= longest else f"{shown}…"


def quoted(text: str) -> str:
    """What a user wrote, in quotation marks, short and on one line."""
    return f"'{one_line(text, SHOWN)}'"


def told(error: "ErrorDetails") -> str:
    """Pydantic's message about one value, with what was given."""
    given = error.get("input")
    shown = "" if isinstance(given, dict) else f" (given: {_as_in_yaml(given)})"
    message = error["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list such as [a, b]")
    return one_line(message.replace("Tuple should", "List should") + shown)


def _as_in_yaml(given: object) -> str:
    match given:
        case None:
            return "null"
        case list() | tuple():
            return f"[{', '.join(map(str, given))}]"[:SHOWN]
        case _:
            return repr(str(given)[:SHOWN])


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the known one that is most like it, or all of them."""
    plain = "".join(_LOOK_ALIKES.get(c, c) for c in unicodedata.normalize("NFKC", name[:NAME_LENGTH]).casefold())
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.4)
    odd = next((c for c in name[:NAME_LENGTH] if not " " <= c <= "~"), "")
    why = f" ({odd!r} is U+{ord(odd):04X})" if odd else ""
    return f"; did you mean '{close[0]}'?{why}" if close else f"{why}; known are {one_line(', '.join(known))}"
