"""Rows of the source dataset: which are usable as rollouts, and which are not and why."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.dataset.config import DatasetConfig
from resources.chat import Rollout, clean
from resources.errors import BadInput, one_line
from resources.hub import explained
from resources.models import place
from resources.sources import local_folder

if TYPE_CHECKING:
    from datasets import Dataset


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
        BadInput: when it cannot be loaded, or lacks a column.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    revision = None if local_folder(dataset.source) else dataset.revision
    try:
        with explained(dataset.source):
            source = datasets.load_dataset(place(dataset.source), split=dataset.split, revision=revision)
    except DatasetsError as error:
        behind = error.__cause__ or error
        reason = one_line(str(behind).strip().partition("\n")[0]) or type(behind).__name__
        raise BadInput(f"the files of {dataset.source} cannot be read as a table: {reason}") from error
    columns = [dataset.question_column, dataset.thinking_column, dataset.attempt_column, dataset.solution_column]
    missing = [column for column in columns if column and column not in source.column_names]
    if missing:
        raise BadInput(
            f"{dataset.source} has no column {', '.join(missing)}; it has {', '.join(source.column_names)}: "
            f"set dataset.question_column, thinking_column, attempt_column and solution_column"
        )
    return source


def read_rows(source: "Dataset", dataset: DatasetConfig) -> tuple[list[Row], list[Skip]]:
    """Every row in order, until `max_rollouts` usable ones have come."""
    usable: list[Row] = []
    skipped: list[Skip] = []
    for index, record in enumerate(source):
        if len(usable) == dataset.max_rollouts:
            break
        row = _row(index, dict(record), dataset)
        if isinstance(row, Row):
            usable.append(row)
        else:
            skipped.append(row)
    return usable, skipped


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
    return Row(index, clean(question, thinking, attempt), str(solution or ""))
