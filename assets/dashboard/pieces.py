"""Texts of tokens as numbers: one vocabulary of distinct pieces for the whole site, exact for every character.

A piece is the text between two token boundaries, not the decoding of an id: a token may end inside a character.
Shapes: T tokens of all rollouts, C contexts, W tokens of all their windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assets.dataset.artifact import S1kDataset


@dataclass(frozen=True)
class Pieces:
    """Every token of some rollouts as a place in `vocabulary`; a rollout's pieces joined are its text."""

    vocabulary: list[str]
    """Most frequent first, so that most numbers are small and compress well."""
    piece_T: np.ndarray
    """uint16 when the vocabulary allows it, else uint32."""
    bounds: dict[int, tuple[int, int]]
    """Rollout -> its tokens in `piece_T`."""

    @classmethod
    def of(cls, dataset: S1kDataset, rollouts: Sequence[int]) -> "Pieces":
        """Cut each rollout's text once."""
        found: dict[str, int] = {}
        parts: list[np.ndarray] = []
        bounds: dict[int, tuple[int, int]] = {}
        end = 0
        for rollout in rollouts:
            text = dataset.text(rollout)
            numbers = [found.setdefault(text[a:b], len(found)) for a, b in dataset.spans(rollout).tolist()]
            parts.append(np.array(numbers, np.uint32))
            bounds[rollout] = (end, end := end + len(numbers))
        first_T = np.concatenate([np.zeros(0, np.uint32), *parts])
        order = np.argsort(-np.bincount(first_T, minlength=len(found)), kind="stable")
        place = np.empty(len(found), np.uint16 if len(found) <= 2**16 else np.uint32)
        place[order] = np.arange(len(found))
        words = list(found)
        return cls([words[i] for i in order], place[first_T], bounds)

    def rollout(self, rollout: int) -> np.ndarray:
        """The rollout's pieces."""
        first, end = self.bounds[rollout]
        return self.piece_T[first:end]

    def windows(self, rollout_C: np.ndarray, start_C: np.ndarray, length_C: np.ndarray) -> np.ndarray:
        """Pieces of every window, one after the other [W]."""
        first_C = np.array([self.bounds[r][0] for r in rollout_C.tolist()], np.int64) + start_C
        before_C = np.cumsum(length_C) - length_C
        return self.piece_T[np.repeat(first_C - before_C, length_C) + np.arange(int(length_C.sum()))]
