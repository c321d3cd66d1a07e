"""The base of every config section: frozen, closed, and honest about the outside files it names."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator

LARGEST_INT = 2**63 - 1
"""What Arrow, JSON readers and random generators take."""


class Section(BaseModel):
    """One section of an experiment file. Every field says unit, bounds and source in its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def sources(self) -> tuple[str, ...]:
        """Names (hub ids or folders) of outside data; the content of local ones enters the cache key."""
        return ()

    def vendors(self) -> tuple[str, ...]:
        """Providers of the models that the section has asked."""
        return ()

    @field_validator("*")
    @classmethod
    def _bounded(cls, value: object) -> object:
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int) and abs(one) > LARGEST_INT:
                raise ValueError(f"an integer lies between -{LARGEST_INT} and {LARGEST_INT}")
        return value


Sections = Mapping[str, Section]
"""All of an experiment, by name."""
Kind = TypeVar("Kind", bound=Section)


def section_of(sections: Sections, kind: type[Kind]) -> Kind:
    """An experiment's section of that kind."""
    return next(section for section in sections.values() if isinstance(section, kind))


def written(value: object) -> str:
    """A field's value as one would write it in an experiment's file, lists without brackets."""
    if isinstance(value, list) and value:
        return ", ".join(map(written, value))
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def plain_address(address: str) -> str:
    """The address of a server, if it is one and holds no secret: what an experiment says is stored and shown.

    Raises:
        ValueError: for another scheme than http, an impossible port, or with a user, a password or a query.
    """
    parts = urlsplit(address)
    if address and (parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0):
        raise ValueError("write an address such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("leave user, password and query out of the address: keys come from the environment")
    return address


def check_address(provider: str, address: str, name: str) -> None:
    """A server of one's own has no address that could be known.

    Raises:
        ValueError: when it is missing; `name` is the field that takes it.
    """
    if provider == "openai-compatible" and not address:
        raise ValueError(f"a provider 'openai-compatible' needs {name}, such as http://127.0.0.1:8000/v1")


def prompt_name(name: str) -> str:
    """The name of a prompt that ships with its room.

    Raises:
        ValueError: for anything that could be a path.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError("write the name of a file in the room's prompts folder, without .txt")
    return name


Address = Annotated[str, AfterValidator(plain_address)]
"""Of a server; may be empty."""
PromptName = Annotated[str, AfterValidator(prompt_name)]
"""Of a file in a room's `prompts/`."""
