"""Questions as lm-eval wants them: loaded by the task files in `tasks/` through `custom_dataset` and `process_results`.

The functions named in the task files get their arguments from lm-eval: task metadata and `dataset_kwargs` as keywords.
"""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets.benchmarks.extract import extract
from assets.benchmarks.grade import LETTERS, Grade, check_gold, grade_choice, grade_math, is_integer
from resources.errors import BadInput
from resources.hub import fetched

if TYPE_CHECKING:
    from datasets import Dataset


QUESTION = ("problem", "question", "orig_problem")
ANSWER = ("answer", "orig_answer")
CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")

Row = dict[str, Any]


def load_math(
    *, split: str, path: str = "", parquet: str = "", revision: str | None = None, **_metadata: Any
) -> "dict[str, Dataset]":
    """A math or mini benchmark with columns `problem` and `answer`; from the hub, or from a file of the project.

    Raises:
        BadInput: when a row lacks a question or an answer.
    """
    table = _parquet(parquet) if parquet else _rows(path, "", split, revision)
    return {split: _dataset(table, _math)}


def load_choice(
    *, split: str, path: str, name: str, seed: int, revision: str | None = None, **_metadata: Any
) -> "dict[str, Dataset]":
    """GPQA: the choices in an order that depends on the seed and the question alone, and the gold letter.

    Raises:
        BadInput: when a row lacks one of GPQA's columns.
    """
    return {split: _dataset(_rows(path, name, split, revision), lambda row: _with_choices(row, seed))}


def load_mini_choice(*, split: str, parquet: str, **_metadata: Any) -> "dict[str, Dataset]":
    """The mini world's multiple choice: the options stand in the problem, the answer is a letter.

    Raises:
        BadInput: when a row lacks a question or an answer.
    """
    return {split: _dataset(_parquet(parquet), _choice)}


def _dataset(table: list[Row], read: Callable[[Row], Row]) -> "Dataset":
    from datasets import Dataset

    schema = pa.schema(
        [(name, pa.string()) for name in ("question_id", "problem", "answer")] + [("choices", pa.list_(pa.string()))]
    )
    rows = [_numbered(number, row, read) for number, row in enumerate(table)]
    seen: dict[str, int] = {}
    for row in rows:
        seen[row["question_id"]] = count = seen.get(row["question_id"], 0) + 1
        if count > 1:
            row["question_id"] += f"-{count}"
    return Dataset(pa.Table.from_pylist(rows, schema=schema))


def _numbered(number: int, row: Row, read: Callable[[Row], Row]) -> Row:
    try:
        return read(row)
    except BadInput as error:
        raise BadInput(f"question {number} {error}") from error


def _parquet(file: str) -> list[Row]:
    from resources.sources import PROJECT

    try:
        return pq.read_table(PROJECT / Path(file).expanduser()).to_pylist()
    except pa.ArrowInvalid as error:
        raise BadInput(f"{file} is no whole Parquet file: write the questions as one") from error


def _rows(path: str, name: str, split: str, revision: str | None) -> list[Row]:
    from datasets import load_dataset

    # From the hub's cache, as every source: by name, `load_dataset` wants a cache of its own where there is no hub.
    folder = str(fetched(path, revision, kind="dataset"))
    return load_dataset(folder, name or None, split=split).to_list()


def _text(row: Row, columns: Sequence[str]) -> str:
    """The first of the columns that says something.

    Raises:
        BadInput: when none does; scores of the question "None" would look like any other.
    """
    texts = [str(row[column]) for column in columns if row.get(column) is not None]
    found = next((text for text in texts if text.strip()), None)
    if found is None:
        raise BadInput(
            f"has no text under {' or '.join(columns)} (its columns are {', '.join(row)}): name or fill one of them"
        )
    return found


def _math(row: Row) -> Row:
    problem = _text(row, QUESTION)
    return {"question_id": _question_id(row, problem), "problem": problem, "answer": _gold(row), "choices": []}


def _choice(row: Row) -> Row:
    return _math(row) | {"answer": _text(row, ANSWER).strip()}


def _gold(row: Row) -> str:
    """The gold answer; integers without leading zeros ("033" is "33", as s1 does)."""
    answer = _text(row, ANSWER).strip()
    return str(int(answer)) if is_integer(answer) else answer


def _question_id(row: Row, question: str) -> str:
    """The data set's own id, else a hash of the question."""
    for column in ("Record ID", "unique_id", "id", "ID"):
        if row.get(column) not in (None, ""):
            return str(row[column])
    return hashlib.sha256(question.encode()).hexdigest()[:12]


def _with_choices(row: Row, seed: int) -> Row:
    question = _text(row, ("Question",))
    missing = [column for column in CHOICES if column not in row]
    if missing:
        raise BadInput(f"has no column {', '.join(missing)} (its columns are {', '.join(row)}): name them as GPQA does")
    question_id = _question_id(row, question)
    right, *wrong = (_clean(row[column]) for column in CHOICES)
    choices = [*wrong, right]
    order = random.Random(f"{seed}:{question_id}").sample(range(4), 4)
    shown = [choices[index] for index in order]
    lines = "\n".join(f"{letter}) {choice}" for letter, choice in zip(LETTERS, shown, strict=True))
    return {
        "question_id": question_id,
        "problem": f"{question}\n\n{lines}",
        "answer": LETTERS[order.index(3)],
        "choices": shown,
    }


def _clean(choice: str | None) -> str:
    """A choice without the crumbs of GPQA's export (as lm-eval's own GPQA task)."""
    if choice is None:
        return " "
    return re.sub(r"\[.*?\]", "", choice.strip().replace(" [title]", ". ")).replace("  ", " ")


def all_samples(answers: list[list[str]], _documents: list[dict[str, Any]]) -> list[list[str]]:
    """lm-eval's filter: keep every sample of a question (its default keeps the first)."""
    return answers


def math_results(document: dict[str, Any], results: list[list[str]]) -> dict[str, float]:
    """lm-eval's metrics of one question: mean over its samples."""
    return _metrics([grade_math(extract(text), document["answer"]) for text in _samples(results)])


def choice_results(document: dict[str, Any], results: list[list[str]]) -> dict[str, float]:
    """lm-eval's metrics of a multiple-choice question: `exact_match` as s1, `strict_match` without its default "A".

    Raises:
        BadInput: for more than four options.
    """
    choices = tuple(document.get("choices") or ())
    check_gold(document["answer"], choices)
    return _metrics([grade_choice(extract(text), document["answer"], choices) for text in _samples(results)])


def _samples(results: list[list[str]]) -> list[str]:
    """The texts of one question; lm-eval hands over one request whose answers `all_samples` kept together."""
    (texts,) = results
    return texts


def _metrics(grades: list[Grade]) -> dict[str, float]:
    return {
        "exact_match": sum(grade.correct for grade in grades) / len(grades),
        "strict_match": sum(grade.strict for grade in grades) / len(grades),
    }
