"""Own questions: what is asked and what counts as right stands in the table, or nothing is asked at all."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.benchmarks.documents import choice_results, load_choice, load_math, load_mini_choice
from assets.benchmarks.harness import load_benchmark
from resources.errors import BadInput
from tests.assets.benchmarks.conftest import World, write_questions
from tests.assets.benchmarks.test_harness import ROW, gpqa, render


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "own.parquet"


def math(table: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    pq.write_table(pa.Table.from_pylist(list(rows)), table)
    return load_math(split="test", parquet=str(table))["test"].to_list()


@pytest.mark.parametrize("column", ["problem", "question", "orig_problem"])
def test_the_question_is_read_from_any_of_three_columns(table: Path, column: str) -> None:
    (found,) = math(table, {column: " What? ", "answer": 0})
    assert (found["problem"], found["answer"]) == (" What? ", "0")


def test_a_column_of_another_name_is_refused_with_what_was_found_and_what_is_read(table: Path) -> None:
    with pytest.raises(BadInput) as caught:
        math(table, {"id": 1, "prompt": "What?", "answer": 1})
    assert str(caught.value) == (
        "question 0 has no text under problem or question or orig_problem (its columns are id, prompt, answer): "
        "name or fill one of them"
    )
    with pytest.raises(BadInput, match=r"no text under answer or orig_answer \(its columns are problem, target\)"):
        math(table, {"problem": "What?", "target": 1})


@pytest.mark.parametrize("empty", ["", " \n", None])
def test_an_empty_question_or_answer_is_refused_with_its_number(table: Path, empty: str | None) -> None:
    whole = {"problem": "What?", "answer": "1"}
    for column in whole:
        with pytest.raises(BadInput, match=f"question 1 has no text under .*{column}"):
            math(table, whole, whole | {column: empty})


def test_a_column_without_text_leaves_the_question_to_the_next(table: Path) -> None:
    (found,) = math(table, {"problem": "", "question": "Else?", "answer": "1"})
    assert found["problem"] == "Else?"


def test_multiple_choice_reads_the_same_columns(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"question": ["Which?", ""], "answer": ["A", "B"]}), table)
    with pytest.raises(BadInput, match="question 1 has no text under problem or question or orig_problem"):
        load_mini_choice(split="test", parquet=str(table))
    gpqa(monkeypatch, [ROW, {"problem": "Which?", "answer": "A"}])
    with pytest.raises(BadInput, match="question 1 has no text under Question"):
        load_choice(split="train", path="p", name="n", seed=0)
    gpqa(monkeypatch, [{"Question": "Which?", "Correct Answer": "yes", "Incorrect Answer 1": "no"}])
    with pytest.raises(BadInput, match="question 0 has no column Incorrect Answer 2, Incorrect Answer 3"):
        load_choice(split="train", path="p", name="n", seed=0)


@pytest.mark.parametrize(("own", "kept"), [(0, "0"), (7, "7"), ("a", "a")])
def test_an_id_of_the_table_is_kept(table: Path, own: int | str, kept: str) -> None:
    (found,) = math(table, {"id": own, "problem": "What?", "answer": "1"})
    assert found["question_id"] == kept


@pytest.mark.parametrize("own", ["", None])
def test_a_row_without_an_id_is_called_by_its_question(table: Path, own: str | None) -> None:
    (found,) = math(table, {"id": own, "problem": "What?", "answer": "1"})
    assert found["question_id"] == math(table, {"problem": "What?", "answer": "2"})[0]["question_id"]
    assert len(found["question_id"]) == 12


def test_what_is_wrong_with_a_table_is_said_of_its_benchmark(world: World) -> None:
    file = world.root / "project/resources/mini_world/data/hard/test.parquet"
    pq.write_table(pa.table({"prompt": ["What?"], "answer": ["1"]}), file)
    with pytest.raises(BadInput, match=r"^mini_hard: question 0 has no text under .* name or fill one of them$"):
        load_benchmark("mini_hard", render, limit=None, samples=1, seed=0)


@pytest.mark.parametrize("gold", ["E", "J", "b", "AB", "4"])
def test_multiple_choice_beyond_four_options_is_refused(world: World, gold: str) -> None:
    write_questions(world.root / "project", "choice", ["A", gold])
    with pytest.raises(
        BadInput, match=rf"^mini_choice: question 1: the right answer is '{gold}': .* four options, A to D"
    ):
        load_benchmark("mini_choice", render, limit=None, samples=1, seed=0)
    with pytest.raises(BadInput, match="four options"):
        choice_results({"answer": gold, "choices": []}, [[f"\\boxed{{{gold}}}"]])


def test_a_fifth_option_is_refused_where_the_right_one_is_among_the_first_four() -> None:
    with pytest.raises(BadInput, match=r"the right answer is 'A' of 5: .* four options"):
        choice_results({"answer": "A", "choices": ["v", "w", "x", "y", "z"]}, [["\\boxed{E}"]])


def test_questions_may_lie_under_the_home_as_their_key_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pq.write_table(pa.table({"problem": ["1 + 1?"], "answer": ["2"]}), tmp_path / "own.parquet")
    assert load_math(split="test", parquet="~/own.parquet")["test"]["answer"][0] == "2"


def test_questions_in_another_format_are_told_to_be_written_as_parquet(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}')
    with pytest.raises(BadInput, match=r"own\.jsonl is no whole Parquet file: write the questions as one$"):
        load_math(split="test", parquet=str(tmp_path / "own.jsonl"))
