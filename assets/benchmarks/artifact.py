"""What `benchmark_scores` holds on disk.

`records.parquet`, `scores.parquet`, `pairs.parquet`, `recovery.parquet`, and `lm_eval.json`: lm-eval's own results.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from resources.artifact import Artifact
from resources.columns import described

RECORDS = pa.schema(
    [
        described(
            "arm",
            pa.string(),
            "base, lora, full_finetune, attention_ablated, mlp_ablated, or the name of a further adapter",
        ),
        described("benchmark", pa.string(), "name of the task file"),
        described("question_id", pa.string(), "the data set's own id, else a hash of the question"),
        described("sample", pa.int32(), "number of the answer to this question, from 0"),
        described("prompt", pa.string(), "what the model was given, rendered by the chat template"),
        described(
            "choices", pa.list_(pa.string()), "texts behind A to D as shown; empty where the task has none of its own"
        ),
        described("gold", pa.string(), "the right answer"),
        described("output", pa.string(), "what the model said"),
        described("extracted", pa.string(), "the answer read from it"),
        described(
            "rule", pa.string(), "where that stood: boxed, answer (after Answer:), whole (all of it) or empty (nothing)"
        ),
        described("correct", pa.bool_(), "right by the paper's rule; null where a judge was due and down"),
        described(
            "strict_correct",
            pa.bool_(),
            "right, where a multiple-choice answer that names no letter is wrong instead of A",
        ),
        described(
            "graded_by", pa.string(), "integer, text, math_verify, letter, choice, default (no letter), judge or none"
        ),
        described("judge_note", pa.string(), "why a judge that was due could not decide"),
        described("prompt_tokens", pa.int32(), "tokens of the prompt"),
        described("tokens", pa.int32(), "tokens of the output"),
        described("finish_reason", pa.string(), "stop, or length: cut by the token limit"),
        described("truncated", pa.bool_(), "cut by the token limit"),
    ]
)
"""One row per arm, question and sample."""

SCORES = pa.schema(
    [
        described("arm", pa.string(), "as in records.parquet"),
        described("benchmark", pa.string(), "name of the task file"),
        described("correct", pa.int32(), "right answers"),
        described("total", pa.int32(), "answers: questions x samples"),
        described(
            "score",
            pa.float64(),
            "mean over questions; null while answers are ungraded (then between correct / total and highest)",
        ),
        described(
            "ci_low",
            pa.float64(),
            "95 % interval of the score, lower end: Wilson's, with several samples widened by the spread of questions",
        ),
        described("ci_high", pa.float64(), "upper end"),
        described("strict_correct", pa.int32(), "right answers where one that names no letter is wrong instead of A"),
        described("strict_score", pa.float64(), "their share of all answers"),
        described("questions", pa.int32(), "questions asked"),
        described("truncated", pa.int32(), "answers cut by the token limit"),
        described("empty", pa.int32(), "answers in which nothing was said"),
        described("unmarked", pa.int32(), "answers with neither a box nor Answer:"),
        described("defaulted", pa.int32(), "answers that named no letter and so count as A"),
        described("ungraded", pa.int32(), "answers that a judge was due for and could not be asked"),
        described("highest", pa.float64(), "share of right answers if every ungraded one were right"),
        described("mean_tokens", pa.float64(), "tokens per answer, mean"),
    ]
)
"""One row per arm and benchmark."""

PAIRS = pa.schema(
    [
        described("benchmark", pa.string(), "name of the task file"),
        described("first", pa.string(), "arm"),
        described("second", pa.string(), "arm that it is compared with on the same questions"),
        described("only_first", pa.int32(), "questions on which the first is better"),
        described("only_second", pa.int32(), "questions on which the second is better"),
        described("p_value", pa.float64(), "exact McNemar, two-sided; null with several samples per question"),
        described("difference", pa.float64(), "score of the second minus that of the first"),
        described("ci_low", pa.float64(), "95 % interval of the difference, lower end: Bonett and Price's"),
        described("ci_high", pa.float64(), "upper end"),
    ]
)
"""One row per benchmark and pair of arms."""

RECOVERY = pa.schema(
    [
        described("benchmark", pa.string(), "name of the task file"),
        described("arm", pa.string(), "adapter"),
        described(
            "recovery",
            pa.float64(),
            "share of the full finetune's gain over the base that it keeps; null when there is no gain",
        ),
        described(
            "ci_low",
            pa.float64(),
            "95 % interval, lower end: Fieller's, adjusted as Bonett and Price's; null where the gain may be 0",
        ),
        described("ci_high", pa.float64(), "upper end"),
    ]
)
"""One row per benchmark and adapter."""

SCHEMAS = {
    "benchmark_scores": {
        "records.parquet": RECORDS,
        "scores.parquet": SCORES,
        "pairs.parquet": PAIRS,
        "recovery.parquet": RECOVERY,
    }
}
"""Asset -> file -> its columns."""


def write(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Rows to Parquet."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")


class BenchmarkScores(Artifact):
    """The artifact `benchmark_scores`."""

    def table(self) -> pa.Table:
        """One row per arm and benchmark, see `SCORES`."""
        return pq.read_table(self.path / "scores.parquet", schema=SCORES)

    def scores(self) -> list[dict[str, Any]]:
        """The table as dictionaries."""
        return self.table().to_pylist()

    def pairs(self) -> list[dict[str, Any]]:
        """One dictionary per benchmark and pair of arms, see `PAIRS`."""
        return pq.read_table(self.path / "pairs.parquet", schema=PAIRS).to_pylist()

    def recovery(self) -> list[dict[str, Any]]:
        """One dictionary per benchmark and adapter, see `RECOVERY`."""
        return pq.read_table(self.path / "recovery.parquet", schema=RECOVERY).to_pylist()

    def records(self) -> pa.Table:
        """One row per arm, question and sample, see `RECORDS`."""
        return pq.read_table(self.path / "records.parquet", schema=RECORDS)
