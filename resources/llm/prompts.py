"""Prompts are data files; their content is part of every cache key, so that a changed word is a new question."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from resources.errors import BadInput, printable
from resources.keys import digest
from resources.llm.question import TYPICAL_BYTES_PER_TOKEN
from resources.sources import PROJECT, FileName

_SLOT = re.compile(r"\{\{(\w+)\}\}")
_KEPT = "\n\t"


@dataclass(frozen=True)
class Prompt:
    """A system and a user message with `{{slots}}`."""

    name: str
    system: str
    user: str

    @property
    def version(self) -> str:
        """`b1-1f3a90c2d4`: the name and a hash of the content."""
        return f"{self.name}-{digest('prompt', [self.system, self.user])[:10]}"

    @property
    def likely_tokens(self) -> float:
        """An estimate, without what fills the slots."""
        return len((self.system + self.user).encode()) / TYPICAL_BYTES_PER_TOKEN

    def fill(self, slots: dict[str, str]) -> tuple[str, str]:
        """System and user message; slots are filled once, so that data which looks like a slot stays as it is."""
        return _filled(self.system, slots), _filled(self.user, slots)


def load_prompt(folder: Path, name: str) -> Prompt:
    """The prompt `<name>.txt`, which has a `# system` and a `# user` part.

    Raises:
        BadInput: when there is no such file or it has other parts.
    """
    path = folder / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.txt")))
        raise BadInput(f"there is no prompt '{name}' in {folder}: known are {known}")
    parts = re.fullmatch(r"# system\n(.*)\n# user\n(.*)", path.read_text(encoding="utf-8"), re.S)
    if parts is None:
        raise BadInput(f"{path} needs a '# system' and then a '# user' part")
    return Prompt(name, parts[1].strip(), parts[2].strip())


def check_slots(folder: Path, name: str, needed: Collection[str], others: Collection[str] = ()) -> None:
    """A prompt that lacks a needed slot would ask the same of every unit.

    Raises:
        BadInput: when there is no such prompt, or it has other slots than these.
    """
    prompt = load_prompt(folder, name)
    used = set(_SLOT.findall(prompt.system + prompt.user))
    for slot in sorted({*needed} - used):
        raise BadInput(f"{folder / name}.txt has no slot {{{{{slot}}}}}: write it where that shall stand")
    for slot in sorted(used - {*needed, *others}):
        known = ", ".join(f"{{{{{one}}}}}" for one in (*needed, *others))
        raise BadInput(f"{folder / name}.txt has a slot {{{{{slot}}}}}, which nothing fills: there are {known}")


def prompt_files(folder: Path, *names: str) -> tuple[FileName, ...]:
    """The prompts' files as sources of a section; clones in two places name them alike."""
    return tuple(FileName((folder / f"{name}.txt").relative_to(PROJECT)) for name in names)


def escaped(text: str) -> str:
    """Data as it may stand between tags: markup and control characters lose their power, nothing is lost."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return printable(text, _KEPT)


def _filled(text: str, slots: dict[str, str]) -> str:
    return _SLOT.sub(lambda slot: slots[slot[1]], text)
