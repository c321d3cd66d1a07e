"""Rollouts on disk: one table of rollouts, one flat table of tokens. A token is (rollout_id, position) everywhere.

Shapes: T tokens of one rollout.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resources.artifact import Artifact
from resources.columns import required
from resources.errors import BadInput

ROLLOUTS, TOKENS = "rollouts.parquet", "tokens.parquet"


ROLLOUT_SCHEMA = pa.schema(
    [
        required("rollout_id", pa.int32(), "row number in the source dataset"),
        required("question", pa.string(), "the user's question"),
        required("solution", pa.string(), "the source's reference solution; empty when it has none"),
        required("text", pa.string(), "the full rendered text"),
        required("n_tokens", pa.int32(), "tokens kept"),
        required("n_cut", pa.int32(), "tokens beyond the block size, left out"),
    ]
)
TOKEN_SCHEMA = pa.schema(
    [
        required("rollout_id", pa.int32(), "row number in the source dataset"),
        required("position", pa.int32(), "place in the rollout, from 0"),
        required("token_id", pa.int32(), "id in the base model's vocabulary"),
        required("start", pa.int32(), "first character in the rollout's text"),
        required("end", pa.int32(), "one past the last character; a character belongs to the token with its last byte"),
        required("role", pa.int8(), "0 system, 1 user, 2 think, 3 answer, 4 template"),
        required("loss", pa.bool_(), "an assistant's token, trained on"),
    ]
)
SCHEMAS = {"s1k_dataset": {ROLLOUTS: ROLLOUT_SCHEMA, TOKENS: TOKEN_SCHEMA}}
"""Asset -> file -> its columns."""


@dataclass(frozen=True, repr=False)
class S1kDataset(Artifact):
    """The rollouts of an experiment; `r` is always a rollout_id. Token columns are read when first asked for."""

    _rollouts: pa.Table

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an artifact folder.

        Raises:
            FileNotFoundError: when its files are missing.
        """
        return cls(path, pq.read_table(path / ROLLOUTS))

    def table(self) -> pa.Table:
        """One row per rollout."""
        return self._rollouts

    @property
    def num_rollouts(self) -> int:
        """Rollouts kept."""
        return self._rollouts.num_rows

    @cached_property
    def rollout_ids(self) -> tuple[int, ...]:
        """Ascending row numbers of the source; not contiguous where rows were skipped."""
        return tuple(self._rollouts["rollout_id"].to_pylist())

    @cached_property
    def lengths(self) -> dict[int, int]:
        """Tokens of each rollout."""
        return dict(zip(self.rollout_ids, self._rollouts["n_tokens"].to_pylist(), strict=True))

    @property
    def num_tokens(self) -> int:
        """Tokens of all rollouts."""
        return sum(self.lengths.values())

    def text(self, r: int) -> str:
        """The full rendered text, also of what the block size cut."""
        return self._rollouts["text"][self._row(r)].as_py()

    def question(self, r: int) -> str:
        """The user's question."""
        return self._rollouts["question"][self._row(r)].as_py()

    def solution(self, r: int) -> str:
        """The source's reference solution, or an empty string."""
        return self._rollouts["solution"][self._row(r)].as_py()

    def token_ids(self, r: int) -> np.ndarray:
        """int32[T]."""
        return self._token_id[self._slice(r)]

    def loss_mask(self, r: int) -> np.ndarray:
        """bool[T]: the assistant's tokens, through `<|im_end|>`."""
        return self._loss[self._slice(r)]

    def roles(self, r: int) -> np.ndarray:
        """int8[T] of `resources.chat.Role`."""
        return self._role[self._slice(r)]

    def spans(self, r: int) -> np.ndarray:
        """int32[T, 2]: characters [start, end) of `text(r)`; joined they give the text."""
        return self._span[self._slice(r)]

    def around(self, r: int, position: int, tokens: int) -> tuple[str, str, str]:
        """The texts before, of and after a token, up to `tokens` on either side; empty inside a split character."""
        spans, text = self.spans(r), self.text(r)
        first, last = max(0, position - tokens), min(len(spans) - 1, position + tokens)
        start, end = spans[position].tolist()
        return text[spans[first, 0] : start], text[start:end], text[end : spans[last, 1]]

    def __iter__(self) -> Iterator[int]:
        return iter(self.rollout_ids)

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {r: row for row, r in enumerate(self.rollout_ids)}

    def _row(self, r: int) -> int:
        if r not in self._row_of:
            raise BadInput(f"there is no rollout {r} in {self.path}: it has {self.num_rollouts} rollouts")
        return self._row_of[r]

    @cached_property
    def _bounds(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self._rollouts["n_tokens"].to_numpy(), dtype=np.int64)])

    def _slice(self, r: int) -> slice:
        row = self._row(r)
        return slice(int(self._bounds[row]), int(self._bounds[row + 1]))

    def _column(self, name: str) -> np.ndarray:
        # a copy, because torch.from_numpy warns about read-only memory
        return pq.read_table(self.path / TOKENS, columns=[name])[name].to_numpy().copy()

    @cached_property
    def _token_id(self) -> np.ndarray:
        return self._column("token_id")

    @cached_property
    def _loss(self) -> np.ndarray:
        return self._column("loss")

    @cached_property
    def _role(self) -> np.ndarray:
        return self._column("role")

    @cached_property
    def _span(self) -> np.ndarray:
        return np.stack([self._column("start"), self._column("end")], axis=1)
