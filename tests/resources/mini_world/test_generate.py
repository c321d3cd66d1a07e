"""The committed data: made again from the seed row for row, and no problem in two sets."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from resources.mini_world.documents import pretraining_problem
from resources.mini_world.generate import DATA_FOLDER, benchmark, draw_problems, rollouts, write_all
from resources.mini_world.world import KINDS, Split, split_of

SETS: dict[Split, int] = {"s1k_mini": 1000, "hard": 200, "medium": 200, "choice": 200}


def steps_of(problem_text: str) -> str:
    """The start and the steps of a problem's text: what makes it that problem."""
    lines = problem_text.split("\n")
    steps = [line for line in lines[1:] if line.split(" ")[0].endswith(("st", "nd", "rd", "th"))]
    return ";".join([next(word for word in lines[0] if word.isdigit()), *steps])


def committed(name: str) -> list[dict[str, object]]:
    return pq.read_table(DATA_FOLDER / name / ("train.parquet" if name == "s1k_mini" else "test.parquet")).to_pylist()


def problems_of(name: str) -> list[str]:
    return [steps_of(str(row["question" if name == "s1k_mini" else "problem"])) for row in committed(name)]


def test_the_committed_sets_are_made_again_from_the_seed_row_for_row(tmp_path: Path) -> None:
    tables = write_all(tmp_path)
    assert {name: table.num_rows for name, table in tables.items()} == {
        "s1k_mini/train.parquet": 1000,
        "hard/test.parquet": 200,
        "medium/test.parquet": 200,
        "choice/test.parquet": 200,
    }
    for name, table in tables.items():
        assert table.equals(pq.read_table(DATA_FOLDER / name)), name


def test_another_seed_gives_other_problems() -> None:
    assert rollouts(seed=1, count=5)["question"] != rollouts(seed=0, count=5)["question"]


def test_the_finetuning_set_has_the_columns_of_s1k() -> None:
    row = committed("s1k_mini")[0]
    wanted = {"question", "solution", "deepseek_thinking_trajectory", "deepseek_attempt", "cot_type", "source_type"}
    assert wanted | {"metadata", "deepseek_grade"} == set(row)
    assert json.loads(str(row["metadata"]))["num_steps"] >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_benchmark_row_is_a_problem_with_its_answer(kind: str) -> None:
    row = committed(kind)[0]
    assert set(row) - {"options"} == {"problem", "answer", "num_steps"}
    assert ("options" in row) == (kind == "choice")
    assert row["answer"] in (("A", "B", "C", "D") if kind == "choice" else tuple("0123456789"))


def test_no_problem_stands_in_two_sets_or_twice_in_one() -> None:
    problems = [problem for name in SETS for problem in problems_of(name)]
    assert len(problems) == 1600
    assert len(set(problems)) == 1600


def test_pretraining_never_sees_a_problem_of_the_other_sets() -> None:
    rng = random.Random(0)
    assert {split_of(pretraining_problem(rng)) for _ in range(300)} == {"pretrain"}
    for name in SETS:
        drawn = draw_problems(name, ["medium"] * 20, seed=5)
        assert {split_of(problem) for _, problem in drawn} == {name}


def test_benchmark_options_hold_the_answer_behind_its_letter() -> None:
    for row in benchmark("choice", seed=2, count=20).to_pylist():
        listed = str(row["problem"]).rsplit("Options: ", 1)[1].split(", ")
        assert [entry.split(" ")[1] for entry in listed] == ["A", "B", "C", "D"]
        assert len(row["options"]) == 4
