"""The tokens as arrays, and what a predicate can see of one: itself, its neighbours, its line, its block, its place.

Shapes: N positions, O of them observed, F families, V distinct tokens. A position is a flat index over (rollout_id,
position).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from assets.dataset.artifact import ROLLOUTS, TOKENS
from assets.interpretations.artifact import FAMILIES
from resources.errors import printable

BLOCKS = ("system", "user", "think", "answer", "template")
"""Role blocks, by the dataset's role number."""
TENTHS = 10
TOKEN_FAMILIES = ("token", "previous", "next", "two before")
"""Families whose value is a token's number."""
ENDINGS = " / "
"""Between the texts of a token that ends several characters; no token of a byte-level tokenizer holds it."""
ENDINGS_SHOWN = 4

_CLASSES: tuple[tuple[str, str], ...] = (
    ("byte piece", rf"(?s:.*{ENDINGS}.*)?"),
    ("template token", r"<\|.*\|>"),
    ("newline", r"\s*\n\s*"),
    ("space", r"\s+"),
    ("number", r"\s*\d+(?:[.,]\d+)*"),
    ("LaTeX command", r"\s*\\[A-Za-z]*"),
    ("opening bracket", r"\s*[\(\[\{⟨]+"),
    ("closing bracket", r"\s*[\)\]\}⟩]+"),
    ("relation", r"\s*(?:[=<>≤≥≠≈∈⊂≡→⇒]|[<>=!]=)"),
    ("operator", r"\s*(?:[-+*/^×÷·±∓√∑∏∫]|\*\*)"),
    ("sentence end", r"\s*[.!?]+\n*"),
    ("punctuation", r"\s*[^\w\s]+\n*"),
    ("single letter", r"\s*[^\W\d_]"),
    ("capitalised word", r"\s*[A-ZÀ-Þ][^\W\d_]*"),
    ("lowercase word piece", r"[^\W\d_]+"),
    ("lowercase word", r"\s+[^\W\d_]+"),
    ("other", r"(?s:.*)"),
)
CLASS_NAMES = tuple(name for name, _ in _CLASSES)
_PATTERNS = tuple(re.compile(pattern) for _, pattern in _CLASSES)


def token_class(text: str) -> int:
    """Index into `CLASS_NAMES` of the first class whose pattern is the whole text."""
    return next(number for number, pattern in enumerate(_PATTERNS) if pattern.fullmatch(text))


@dataclass(frozen=True)
class Corpus:
    """All rollouts as flat arrays; `vocabulary[v]` is the text of the v-th distinct token.

    A token that ends different characters of several bytes has all their texts: it is a byte piece.
    """

    token_N: np.ndarray
    """Compact token number (index into `vocabulary`)."""
    role_N: np.ndarray
    position_N: np.ndarray
    length_N: np.ndarray
    """Tokens of the position's rollout."""
    first: dict[int, int]
    """Rollout id -> flat index of its first token."""
    vocabulary: tuple[str, ...]
    reply_N: np.ndarray
    """bool: the assistant's tokens."""
    observed_O: np.ndarray
    """Flat indices of the tokens on which units were looked at."""

    @classmethod
    def open(cls, dataset: Path) -> "Corpus":
        """Read the dataset room's `tokens.parquet` and `rollouts.parquet`; all tokens count as observed."""
        columns = ["rollout_id", "position", "token_id", "role", "start", "end", "loss"]
        tokens = pq.read_table(dataset / TOKENS, columns=columns)
        rollouts = pq.read_table(dataset / ROLLOUTS, columns=["rollout_id", "text"])
        texts = dict(zip(rollouts["rollout_id"].to_pylist(), rollouts["text"].to_pylist(), strict=True))
        rollout_N = tokens["rollout_id"].to_numpy()
        _, seen_V, token_N = np.unique(tokens["token_id"].to_numpy(), return_index=True, return_inverse=True)
        starts, ends = tokens["start"].to_numpy(), tokens["end"].to_numpy()

        def text_of(at: int) -> str:
            return texts[int(rollout_N[at])][starts[at] : ends[at]]

        words = list(map(text_of, seen_V.tolist()))
        split = 1 + np.flatnonzero(starts[:-1] == ends[:-1])  # behind a token that holds the head of a character
        for token, endings in _endings(token_N[split], map(text_of, split.tolist())).items():
            words[token] = endings
        position_N, role_N, reply_N = (tokens[name].to_numpy() for name in ("position", "role", "loss"))
        return cls.build(rollout_N, position_N, token_N, role_N, words, reply_N)

    @classmethod
    def build(
        cls,
        rollout_N: np.ndarray,
        position_N: np.ndarray,
        token_N: np.ndarray,
        role_N: np.ndarray,
        vocabulary: Sequence[str],
        reply_N: np.ndarray | None = None,
    ) -> "Corpus":
        """From arrays ordered by (rollout, position), every rollout complete from position 0; None: all are replies."""
        starts = np.flatnonzero(np.diff(rollout_N, prepend=rollout_N[0] - 1))
        lengths = np.diff(np.append(starts, len(rollout_N)))
        first = dict(zip(rollout_N[starts].tolist(), starts.tolist(), strict=True))
        replies = np.ones(len(token_N), bool) if reply_N is None else reply_N
        return cls(
            token_N.astype(np.int32), role_N, position_N, np.repeat(lengths, lengths), first, tuple(vocabulary),
            replies, np.arange(len(token_N)),
        )  # fmt: skip

    def replies(self) -> "Corpus":
        """The same for units that were looked at on replies alone."""
        return replace(self, observed_O=np.flatnonzero(self.reply_N))

    def __len__(self) -> int:
        return len(self.token_N)

    @cached_property
    def _words(self) -> tuple[list[str], np.ndarray]:
        """Words, tokens that differ in case or surrounding space only: the text of each, and each token's number."""
        texts, word_V = np.unique([word.strip().casefold() for word in self.vocabulary], return_inverse=True)
        return texts.tolist(), word_V.astype(np.int32)

    @cached_property
    def count_V(self) -> np.ndarray:
        """How often each token stands in the rollouts."""
        return np.bincount(self.token_N, minlength=len(self.vocabulary))

    @cached_property
    def _class_V(self) -> np.ndarray:
        return np.array([token_class(word) for word in self.vocabulary], dtype=np.int32)

    @cached_property
    def _breaks_V(self) -> np.ndarray:
        """Bit 0: a line starts after this token; bit 1: a sentence does."""
        lines = np.array(["\n" in word for word in self.vocabulary])
        stops = np.array([word.strip().endswith((".", "!", "?")) for word in self.vocabulary])
        return lines + 2 * (lines | stops)

    def flat(self, rollout: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Flat indices of (rollout, position) pairs."""
        return np.array([self.first[r] for r in rollout.tolist()], dtype=np.int64) + position

    def features(self, index_n: np.ndarray) -> np.ndarray:
        """What is true of each position: int32 [F, n], -1 where a family says nothing (no neighbour, no line start)."""
        position, last = self.position_N[index_n], self.length_N[index_n] - 1
        token = self.token_N[index_n]
        before = np.where(position > 0, self.token_N[index_n - 1], -1)
        earlier = np.where(position > 1, self.token_N[index_n - 2], -1)
        after = np.where(position < last, self.token_N[np.minimum(index_n + 1, len(self) - 1)], -1)
        breaks = np.where(before >= 0, self._breaks_V[before], 3)
        return np.stack(
            [
                token,
                self._words[1][token],
                self._class_V[token],
                before,
                np.where(before >= 0, self._class_V[before], -1),
                after,
                np.where(after >= 0, self._class_V[after], -1),
                earlier,
                np.where(breaks & 1, 0, -1),
                np.where(breaks & 2, 0, -1),
                self.role_N[index_n],
                position * TENTHS // (last + 1),
            ]
        ).astype(np.int32)

    def value_name(self, family: int, value: int) -> str:
        """The value of a family in words; token texts are quoted with control characters escaped."""
        name = FAMILIES[family]
        if name in TOKEN_FAMILIES:
            return quoted(self.vocabulary[value])
        if name == "word":
            return quoted(self._words[0][value])
        if name.endswith("class"):
            return CLASS_NAMES[value]
        if name == "block":
            return BLOCKS[value]
        return str(value)

    def class_of(self, family: int, value: int) -> str:
        """Class of the token, word (its commonest token) or class that a value names; empty for other families."""
        name = FAMILIES[family]
        if name.endswith("class"):
            return CLASS_NAMES[value]
        if name == "word":
            same = np.flatnonzero(self._words[1] == value)
            value = int(same[self.count_V[same].argmax()])
        elif name not in TOKEN_FAMILIES:
            return ""
        return CLASS_NAMES[int(self._class_V[value])]


def _endings(token_n: np.ndarray, text_n: Iterable[str]) -> dict[int, str]:
    """Tokens that end characters which differ -> the commonest of these; `…` is a place inside a character."""
    counts: dict[int, Counter[str]] = {}
    for token, text in zip(token_n.tolist(), text_n, strict=True):
        counts.setdefault(token, Counter())[text or "…"] += 1
    several = {token: count.most_common(ENDINGS_SHOWN) for token, count in counts.items() if len(count) > 1}
    return {token: ENDINGS.join(text for text, _ in commonest) for token, commonest in several.items()}


def quoted(text: str) -> str:
    """The text in double quotes, control characters as escapes: `"\\n"`."""
    return f'"{printable(text)}"'
