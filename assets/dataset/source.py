"""Rows of the source dataset: which are usable as rollouts, and which are not and why."""

from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from assets.dataset.config import DatasetConfig
from resources.chat import Rollout, clean
from resources.disk import causes, is_full
from resources.errors import BadInput, one_line
from resources.fingerprints import fingerprints
from resources.hub import CACHE_FULL, explained, fetched

if TYPE_CHECKING:
    from datasets import Dataset

TEXT = ("string", "large_string", "null")
"""Arrow types of text; a column without any value is `null`, and its rows are skipped as those that lack it."""


@dataclass(frozen=True)
class Row:
    """A usable row of the source."""

    rollout_id: int
    """Row number in the source."""
    rollout: Rollout
    solution: str
    """The reference solution, or an empty string."""


@dataclass(frozen=True, order=True)
class Skip:
    """A row that is no rollout."""

    rollout_id: int
    reason: str


def load_source(dataset: DatasetConfig) -> "Dataset":
    """The configured split, with the columns checked.

    Raises:
        BadInput: when it cannot be loaded, or lacks a column, or one of them holds no text.
    """
    import datasets
    from datasets import config
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    folder = fetched(dataset.source, dataset.revision, kind="dataset")
    if has_magic(str(folder)):  # the library would look for `[x]` in `x`, and for `a?b` in `a1b` too
        raise BadInput(f"{folder} has a pattern in its name ([, * or ?): move it to a folder without")
    saved = (config.DATASET_STATE_JSON_FILENAME, config.DATASETDICT_JSON_FILENAME)
    if any((folder / name).is_file() for name in saved):
        raise BadInput(f"{dataset.source} was written by save_to_disk: write it as Parquet (to_parquet), into a folder")
    try:
        with explained(dataset.source):
            source = datasets.load_dataset(str(folder), split=dataset.split, cache_dir=_tables(dataset.source))
    except DatasetsError as error:
        if any(map(is_full, causes(error))):  # its tables lie in the hub's cache, those of a local folder too
            raise BadInput(f"no table of {dataset.source} can be made: {CACHE_FULL}") from error
        behind = error.__cause__ or error
        reason = one_line(str(behind).strip().partition("\n")[0]) or type(behind).__name__
        raise BadInput(f"the files of {dataset.source} cannot be read as a table: {reason}") from error
    except StopIteration as error:  # what the library lets through for JSON without a row
        raise BadInput(f"the files of {dataset.source} hold no row") from error
    columns = [dataset.question_column, dataset.thinking_column, dataset.attempt_column, dataset.solution_column]
    missing = [column for column in columns if column and column not in source.column_names]
    if missing:
        raise BadInput(
            f"{dataset.source} has no column {', '.join(missing)}; it has {', '.join(source.column_names)}: "
            f"set dataset.question_column, thinking_column, attempt_column and solution_column"
        )
    for column in (dataset.question_column, dataset.thinking_column, dataset.attempt_column):
        kind = str(source.features.arrow_schema.field(column).type)
        if kind not in TEXT:
            raise BadInput(
                f"column {column} of {dataset.source} is {kind}, not text: store it as text, or name another column"
            )
    # Reading a row decodes all of it, pictures and sound of other columns too.
    return source.select_columns(sorted({column for column in columns if column}))


def _tables(source: str) -> str:
    """Where the library keeps its tables of a source: it knows files by path and time, and an edit can keep both."""
    from datasets import config

    content = fingerprints((source,)).get(source, "")
    return str(Path(config.HF_DATASETS_CACHE) / content)


def read_rows(source: "Dataset", dataset: DatasetConfig, skipped: list[Skip]) -> Iterator[Row]:
    """The rows that have every part, in order, read when asked for; those before them that have not join `skipped`.

    Raises:
        BadInput: when their text is not UTF-8.
    """
    try:
        for index, record in enumerate(source):
            row = _row(index, dict(record), dataset)
            if isinstance(row, Row):
                yield row
            else:
                skipped.append(row)
    except UnicodeDecodeError as error:
        raise BadInput(f"{dataset.source} holds text that is not UTF-8 ({error.reason}): store it as UTF-8") from error


def _row(index: int, record: dict[str, object], dataset: DatasetConfig) -> Row | Skip:
    parts = {
        "question": record[dataset.question_column],
        "trajectory": record[dataset.thinking_column],
        "attempt": record[dataset.attempt_column],
    }
    empty = [name for name, text in parts.items() if not isinstance(text, str) or not text.strip()]
    if empty:
        return Skip(index, f"no {' and no '.join(empty)}")
    solution = record[dataset.solution_column] if dataset.solution_column else ""
    question, thinking, attempt = (str(text) for text in parts.values())
    missing = solution is None or solution != solution  # NaN, in a column of numbers
    return Row(index, clean(question, thinking, attempt), "" if missing else str(solution))
