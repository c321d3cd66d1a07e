"""Task files as people bring them from lm-eval: what ours needs besides is said before anything is asked."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from assets.benchmarks import harness
from assets.benchmarks.harness import load_benchmark
from resources.errors import BadInput
from tests.assets.benchmarks.test_harness import render

PLAIN = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [], do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
GRADED = "process_results: !function assets.benchmarks.documents.math_results\n"
FILTERED = """
filter_list:
  - name: samples
    filter: [{function: custom, filter_fn: !function assets.benchmarks.documents.all_samples}]
"""
ROW = {"question_id": "one", "question": "What?", "answer": "1"}


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "TASK_FOLDER", tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "tables")
    return tmp_path


def load(tasks: Path, task: str, *rows: Mapping[str, object]) -> harness.Benchmark:
    (tasks / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tasks / "mine.yaml").write_text(task.replace("DATA", str(tasks / "rows.jsonl")))
    return load_benchmark("mine", render, limit=None, samples=2, seed=0)


def test_a_task_file_with_our_grader_and_filter_is_taken(tasks: Path) -> None:
    found = load(tasks, PLAIN + GRADED + FILTERED, ROW, ROW | {"question_id": "two"})
    assert [(one.id, one.prompt, one.gold) for one in found.questions] == [
        ("one", "What?>", "1"),
        ("two", "What?>", "1"),
    ]
    assert not found.multiple_choice


def test_an_ordinary_task_file_is_refused_with_what_it_lacks(tasks: Path) -> None:
    with pytest.raises(BadInput) as caught:
        load(tasks, PLAIN, ROW)
    assert str(caught.value) == (
        "mine: its task file lacks `process_results: !function assets.benchmarks.documents.math_results` (or "
        "choice_results) and a filter called `samples`: docs/how-to/own.md shows one that has them"
    )
    with pytest.raises(BadInput, match="lacks a filter called `samples`:"):
        load(tasks, PLAIN + GRADED, ROW)
    with pytest.raises(BadInput, match=r"lacks `process_results: .*choice_results\):"):
        load(tasks, PLAIN + FILTERED, ROW)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "What?", "answer": "1"}, "question 0 has no text under question_id"),
        ({"question_id": "one", "question": "What?", "target": "1"}, "'answer' is undefined"),
        (ROW | {"answer": 1}, "question 0 has no text under answer"),
        (ROW | {"answer": " "}, "question 0 has no text under answer"),
        (ROW | {"question": " "}, "question 0 is empty"),
        ({"question_id": "one", "prompt": "What?", "answer": "1"}, "'question' is undefined"),
    ],
)
def test_a_document_that_lacks_something_is_refused(tasks: Path, row: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=f"^mine: .*{said}"):
        load(tasks, PLAIN + GRADED + FILTERED, row)


def test_the_bare_name_of_a_column_that_is_not_there_is_no_question(tasks: Path) -> None:
    bare = PLAIN.replace('"{{question}}"', "question") + GRADED + FILTERED
    assert load(tasks, bare, ROW).questions[0].prompt == "What?>"
    with pytest.raises(BadInput, match=r"^mine: question 0 asks 'question', which is no column"):
        load(tasks, bare, {"question_id": "one", "prompt": "What?", "answer": "1"})


def test_two_questions_of_one_id_are_refused(tasks: Path) -> None:
    with pytest.raises(BadInput, match=r"^mine: two questions have the question_id 'one'"):
        load(tasks, PLAIN + GRADED + FILTERED, ROW, ROW | {"question": "Else?"})


def test_a_table_without_rows_is_refused(tasks: Path) -> None:
    task = PLAIN.replace("dataset_path: json", "custom_dataset: !function reader.load") + GRADED + FILTERED
    (tasks / "reader.py").write_text(
        "from assets.benchmarks.documents import _dataset\n"
        "def load(**_):\n    return {'test': _dataset([], lambda row: row)}\n"
    )
    with pytest.raises(BadInput, match=r"^mine: its questions and its task file do not fit together"):
        load(tasks, task)
