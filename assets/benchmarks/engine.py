"""What the three back ends have in common: requests for text go in, answers come out as they are finished."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from resources.keys import digest


@dataclass(frozen=True)
class Arm:
    """One model that answers: a base and, on it, an adapter or nothing."""

    name: str
    weights: str | Path
    """Hub id or folder of a whole model."""
    adapter: Path | None
    version: str
    """Hash of what the arm is made of; part of the key of everything it generates."""


@dataclass(frozen=True)
class Request:
    """One text to continue, up to `max_tokens` tokens or one of the `stop` tokens (which is not part of the answer)."""

    prompt: str
    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    seed: int


@dataclass(frozen=True)
class Completion:
    """What came: the text with its special tokens, and why it ended."""

    text: str
    num_tokens: int
    finish: Literal["stop", "length"]


class Engine(Protocol):
    """A back end. Greedy answers do not depend on what else is asked in the same call."""

    @property
    def interleaves(self) -> bool:
        """Whether it gains from being asked everything in one call."""
        ...

    def complete(self, arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """(index of the request, its answer), in the order in which they are finished."""
        ...


def request_seed(seed: int, question: str, sample: int) -> int:
    """A request's own seed, so that a sampled answer does not depend on batch, shard or process."""
    return int(digest("request", [seed, question, sample])[:8], 16)


def up_to(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return re.split("|".join(map(re.escape, stop)), text, maxsplit=1)[0] if stop else text
