"""The two ways a job ends badly that a user can act on; everything else is a bug and keeps its traceback."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class BadInput(ValueError):
    """What the user gave cannot be used: one sentence saying what, where and what to do. Never retried."""


class Interrupted(RuntimeError):
    """The work was stopped from outside after saving its state; running it again goes on from there."""


SHOWN = 80
"""Characters of what a user wrote that a message repeats."""


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
    shown = "" if isinstance(given, dict) else f" (given: {str(given)[:SHOWN]!r})"
    message = error["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list such as [a, b]")  # as in YAML
    return one_line(f"{message}{shown}")
