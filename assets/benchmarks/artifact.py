"""What `benchmark_scores` holds on disk.

`records.parquet`, `scores.parquet`, `pairs.parquet`, `recovery.parquet`, and `lm_eval.json`: lm-eval's own results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

RECORDS = pa.schema(
    [
        ("arm", pa.string()),
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("gold", pa.string()),
        ("output", pa.string()),
        ("extracted", pa.string()),
        ("rule", pa.string()),
        ("correct", pa.bool_()),
        ("strict_correct", pa.bool_()),
        ("graded_by", pa.string()),
        ("judge_note", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("truncated", pa.bool_()),
    ]
)
"""One row per arm, question and sample. `choices`: as shown. `correct` is null where a judge was due and down."""

SCORES = pa.schema(
    [
        ("arm", pa.string()),
        ("benchmark", pa.string()),
        ("correct", pa.int32()),
        ("total", pa.int32()),
        ("score", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("strict_correct", pa.int32()),
        ("strict_score", pa.float64()),
        ("questions", pa.int32()),
        ("truncated", pa.int32()),
        ("empty", pa.int32()),
        ("unmarked", pa.int32()),
        ("defaulted", pa.int32()),
        ("ungraded", pa.int32()),
        ("highest", pa.float64()),
        ("mean_tokens", pa.float64()),
    ]
)
"""One row per arm and benchmark.

`total`: answers (questions x samples). `score`: mean over questions, null while answers are ungraded (then it lies
between correct/total and `highest`). `strict_*`: a multiple-choice answer that names no letter is wrong, not "A".
`truncated`: cut by the token limit. `empty`: nothing was generated. `unmarked`: neither a box nor "Answer:".
`defaulted`: named no letter and so counts as "A". 95 % intervals.
"""

PAIRS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("first", pa.string()),
        ("second", pa.string()),
        ("only_first", pa.int32()),
        ("only_second", pa.int32()),
        ("p_value", pa.float64()),
        ("difference", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
    ]
)
"""One row per benchmark and pair of arms: discordant questions, exact McNemar, second minus first with its interval."""

RECOVERY = pa.schema(
    [
        ("benchmark", pa.string()),
        ("arm", pa.string()),
        ("recovery", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
    ]
)
"""Share of the full finetune's gain over the base; null ends: the questions do not bound it."""


def write(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Rows to Parquet."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")


@dataclass(frozen=True)
class BenchmarkScores:
    """The artifact `benchmark_scores`."""

    folder: Path

    @classmethod
    def open(cls, path: Path) -> "BenchmarkScores":
        """The artifact in a folder."""
        return cls(path)

    def table(self) -> pa.Table:
        """The score table, for `lorascope show`."""
        return pq.read_table(self.folder / "scores.parquet", schema=SCORES)

    def scores(self) -> list[dict[str, Any]]:
        """Rows of `SCORES`."""
        return self.table().to_pylist()

    def pairs(self) -> list[dict[str, Any]]:
        """Rows of `PAIRS`."""
        return pq.read_table(self.folder / "pairs.parquet", schema=PAIRS).to_pylist()

    def recovery(self) -> list[dict[str, Any]]:
        """Rows of `RECOVERY`."""
        return pq.read_table(self.folder / "recovery.parquet", schema=RECOVERY).to_pylist()

    def records(self) -> pa.Table:
        """Rows of `RECORDS`."""
        return pq.read_table(self.folder / "records.parquet", schema=RECORDS)
