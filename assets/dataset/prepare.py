"""Render and tokenise every rollout once, and write the two tables."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from assets.dataset.artifact import ROLLOUT_SCHEMA, ROLLOUTS, TOKEN_SCHEMA, TOKENS
from assets.dataset.config import DatasetConfig
from assets.dataset.source import Row, Skip, load_source, read_rows
from resources.chat import Renderer, Role, Tokenised, tokenise
from resources.errors import BadInput
from resources.models import ModelConfig, load_architecture, load_tokenizer
from resources.progress import Progress

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

BATCH = 64
"""Rollouts tokenised at once: keeps the tokenizer's threads busy and the Python lists of offsets small."""
CHARACTERS_PER_TOKEN = 64
"""Of `dataset.block_size`: a longer row would be cut to a sixteenth at best, and the tokenizer needs 1 GB for 6 MB."""
TEXT_TOO_LONG = f"the text has more than {CHARACTERS_PER_TOKEN} characters for each token of dataset.block_size"
PROMPT_TOO_LONG = "the prompt alone fills dataset.block_size"


class DatasetMetrics(BaseModel, frozen=True):
    """What the rollouts are made of."""

    rollouts: int
    tokens: int
    loss_tokens: int
    """Tokens trained on."""
    mean_tokens: float
    longest: int
    truncated_rollouts: int
    truncated_tokens: int
    skipped_rows: int
    skipped: list[dict[str, int | str]]
    """Row number and reason of every row left out."""
    tokens_by_role: dict[str, int]
    source: str


@dataclass(frozen=True)
class Kept:
    """A usable row with its tokens, cut to the block size."""

    row: Row
    text: str
    tokens: Tokenised
    n_cut: int


def prepare(*, model: ModelConfig, dataset: DatasetConfig, out: Path, progress: Progress) -> DatasetMetrics:
    """Write `rollouts.parquet` and `tokens.parquet` into `out`.

    Raises:
        BadInput: when source or tokenizer cannot be used, or no row is left.
    """
    tokenizer = load_tokenizer(model)
    renderer = Renderer(tokenizer, dataset.text_form)
    words, largest = load_architecture(model).vocab_size, max(tokenizer.get_vocab().values())
    if largest >= words:
        raise BadInput(f"{model.name} embeds {words} tokens and its tokenizer counts to {largest}: take its own one")
    source = load_source(dataset)
    wanted = dataset.max_rollouts or len(source)
    skipped: list[Skip] = []
    rows = _short_rows(source, dataset, skipped)
    counts = _Counts()
    with (
        pq.ParquetWriter(out / ROLLOUTS, ROLLOUT_SCHEMA, compression="zstd") as rollouts,
        pq.ParquetWriter(out / TOKENS, TOKEN_SCHEMA, compression="zstd") as tokens,
    ):
        while batch := list(islice(rows, min(BATCH, wanted - counts.rollouts))):
            cut = _tokenised(batch, renderer, tokenizer, dataset.block_size)
            kept = [one for one in cut if one.tokens.loss_T.any()]
            skipped += [Skip(one.row.rollout_id, PROMPT_TOO_LONG) for one in cut if not one.tokens.loss_T.any()]
            if kept:
                rollouts.write_table(_rollout_table(kept))
                tokens.write_table(_token_table(kept))
            counts.add(kept)
            can_come = min(wanted, len(source) - len(skipped))
            progress.step("tokenise", counts.rollouts, can_come, {"tokens": counts.tokens})
    if not counts.rollouts:
        raise BadInput(f"no rollout is left of the {len(source)} rows of {dataset.source}: {_reasons(skipped)}")
    return counts.metrics(sorted(skipped), dataset)


def _short_rows(source: "Dataset", dataset: DatasetConfig, skipped: list[Skip]) -> Iterator[Row]:
    most = CHARACTERS_PER_TOKEN * dataset.block_size
    for row in read_rows(source, dataset, skipped):
        if _characters(row) <= most:
            yield row
        else:
            skipped.append(Skip(row.rollout_id, TEXT_TOO_LONG))


def _characters(row: Row) -> int:
    return len(row.rollout.question) + len(row.rollout.thinking) + len(row.rollout.attempt)


def _tokenised(
    batch: list[Row], renderer: Renderer, tokenizer: "PreTrainedTokenizerFast", block_size: int
) -> list[Kept]:
    rendered = [renderer.pieces(row.rollout) for row in batch]
    return [
        _cut(row, "".join(piece.text for piece in pieces), tokens, block_size)
        for row, pieces, tokens in zip(batch, rendered, tokenise(tokenizer, rendered), strict=True)
    ]


@dataclass
class _Counts:
    rollouts: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    longest: int = 0
    truncated_rollouts: int = 0
    truncated_tokens: int = 0
    by_role: np.ndarray = field(default_factory=lambda: np.zeros(len(Role), np.int64))

    def add(self, kept: list[Kept]) -> None:
        for one in kept:
            length = len(one.tokens.ids_T)
            self.rollouts += 1
            self.tokens += length
            self.loss_tokens += int(one.tokens.loss_T.sum())
            self.longest = max(self.longest, length)
            self.truncated_rollouts += one.n_cut > 0
            self.truncated_tokens += one.n_cut
            self.by_role += np.bincount(one.tokens.role_T, minlength=len(Role))

    def metrics(self, skipped: list[Skip], dataset: DatasetConfig) -> DatasetMetrics:
        return DatasetMetrics(
            rollouts=self.rollouts,
            tokens=self.tokens,
            loss_tokens=self.loss_tokens,
            mean_tokens=self.tokens / self.rollouts,
            longest=self.longest,
            truncated_rollouts=self.truncated_rollouts,
            truncated_tokens=self.truncated_tokens,
            skipped_rows=len(skipped),
            skipped=[{"row": skip.rollout_id, "reason": skip.reason} for skip in skipped],
            tokens_by_role={role.name.lower(): int(self.by_role[role]) for role in Role},
            source=dataset.source,
        )


def _reasons(skipped: list[Skip]) -> str:
    counted = Counter(skip.reason for skip in skipped)
    return "; ".join(f"{reason}: {count} rows" for reason, count in counted.items()) or "it is empty"


def _cut(row: Row, text: str, tokens: Tokenised, block_size: int) -> Kept:
    kept = Tokenised(
        tokens.ids_T[:block_size], tokens.span_T2[:block_size], tokens.role_T[:block_size], tokens.loss_T[:block_size]
    )
    return Kept(row, text, kept, max(0, len(tokens.ids_T) - block_size))


def _rollout_table(kept: list[Kept]) -> pa.Table:
    columns = [
        [one.row.rollout_id for one in kept],
        [one.row.rollout.question for one in kept],
        [one.row.solution for one in kept],
        [one.text for one in kept],
        [len(one.tokens.ids_T) for one in kept],
        [one.n_cut for one in kept],
    ]
    return pa.Table.from_arrays(columns, schema=ROLLOUT_SCHEMA)


def _token_table(kept: list[Kept]) -> pa.Table:
    lengths = [len(one.tokens.ids_T) for one in kept]
    span_T2 = np.concatenate([one.tokens.span_T2 for one in kept])
    columns = [
        np.repeat(np.array([one.row.rollout_id for one in kept], np.int32), lengths),
        np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        np.concatenate([one.tokens.ids_T for one in kept]),
        span_T2[:, 0],
        span_T2[:, 1],
        np.concatenate([one.tokens.role_T for one in kept]),
        np.concatenate([one.tokens.loss_T for one in kept]),
    ]
    return pa.Table.from_arrays(columns, schema=TOKEN_SCHEMA)
