"""Texts of tokens as numbers: one vocabulary of distinct pieces for the whole site, exact for every character.

A piece is the text between two token boundaries, not the decoding of an id: a token may end inside a character.
Shapes: T tokens of all rollouts, C contexts, W tokens of all their windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

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
        """Cut each rollout's text once, all of it in Arrow: ten million tokens take seconds."""
        texts = [dataset.text(rollout).encode() for rollout in rollouts]
        ends = [_byte_ends(text, dataset.spans(r)[:, 1]) for text, r in zip(texts, rollouts, strict=True)]
        kept = [text[: int(end_T[-1]) if len(end_T) else 0] for text, end_T in zip(texts, ends, strict=True)]
        before = np.cumsum([0, *map(len, kept)])
        offset_T = np.concatenate([[0], *(start + end_T for start, end_T in zip(before, ends, strict=False))])
        buffers = [None, pa.py_buffer(offset_T.astype(np.int64)), pa.py_buffer(b"".join(kept))]
        encoded = pa.Array.from_buffers(pa.large_string(), len(offset_T) - 1, buffers).dictionary_encode()
        first_T = encoded.indices.to_numpy()
        order = np.argsort(-np.bincount(first_T, minlength=len(encoded.dictionary)), kind="stable")
        place = np.empty(len(order), np.uint16 if len(order) <= 2**16 else np.uint32)
        place[order] = np.arange(len(order))
        cuts = np.cumsum([0, *map(len, ends)]).tolist()
        bounds = {r: (a, b) for r, a, b in zip(rollouts, cuts, cuts[1:], strict=False)}
        return cls(encoded.dictionary.take(pa.array(order)).to_pylist(), place[first_T], bounds)

    def rollout(self, rollout: int) -> np.ndarray:
        """The rollout's pieces."""
        first, end = self.bounds[rollout]
        return self.piece_T[first:end]

    def windows(self, rollout_C: np.ndarray, start_C: np.ndarray, length_C: np.ndarray) -> np.ndarray:
        """Pieces of every window, one after the other [W]."""
        first_C = np.array([self.bounds[r][0] for r in rollout_C.tolist()], np.int64) + start_C
        before_C = np.cumsum(length_C) - length_C
        return self.piece_T[np.repeat(first_C - before_C, length_C) + np.arange(int(length_C.sum()))]


def _byte_ends(text: bytes, end_T: np.ndarray) -> np.ndarray:
    """Where tokens end in UTF-8, from where they end in characters."""
    starts = np.flatnonzero((np.frombuffer(text, np.uint8) & 0xC0) != 0x80)
    return np.append(starts, len(text))[end_T]
