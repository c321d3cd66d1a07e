"""lm-eval's side: choice orders, task files, and its sums against our records."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from assets.benchmarks.documents import _with_choices, choice_results, load_choice, load_math, math_results
from assets.benchmarks.harness import evaluate_answers, load_benchmark
from resources.errors import BadInput
from tests.assets.benchmarks.conftest import World

ROW = {
    "Record ID": "rec1",
    "Question": "Which?",
    "Correct Answer": " right ",
    "Incorrect Answer 1": "w1 [title] x",
    "Incorrect Answer 2": "w2",
    "Incorrect Answer 3": None,
}


def render(messages: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
    return "|".join(message["content"] for message in messages) + (">" if add_generation_prompt else "")


def gpqa(monkeypatch: pytest.MonkeyPatch, rows: list[dict]) -> None:
    import datasets

    monkeypatch.setattr("assets.benchmarks.documents.fetched", lambda *_, **__: Path())
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))


def test_the_choice_order_depends_on_seed_and_question_alone() -> None:
    shown = [_with_choices(ROW | {"Record ID": f"rec{number}"}, 0)["choices"] for number in range(40)]
    assert shown == [_with_choices(ROW | {"Record ID": f"rec{number}"}, 0)["choices"] for number in range(40)]
    assert shown != [_with_choices(ROW | {"Record ID": f"rec{number}"}, 1)["choices"] for number in range(40)]
    places = [choices.index("right") for choices in shown]
    assert set(places) == {0, 1, 2, 3}


def test_a_choice_question_shows_s1s_layout_and_points_to_the_right_letter() -> None:
    found = _with_choices(ROW, 0)
    lines = found["problem"].split("\n")
    assert lines[:2] == ["Which?", ""]
    assert [line[:3] for line in lines[2:]] == ["A) ", "B) ", "C) ", "D) "]
    assert f"{found['answer']}) right" in lines
    assert sorted(found["choices"]) == sorted(["right", "w1. x", "w2", " "])


def test_a_shuffled_dataset_keeps_each_questions_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [ROW | {"Record ID": f"rec{number}", "Incorrect Answer 3": "w3"} for number in range(6)]
    gpqa(monkeypatch, rows)
    forward = load_choice(split="train", path="p", name="n", seed=3)["train"].to_list()
    gpqa(monkeypatch, rows[::-1])
    backward = load_choice(split="train", path="p", name="n", seed=3)["train"].to_list()
    assert forward == backward[::-1]


def test_gpqa_through_its_task_file(monkeypatch: pytest.MonkeyPatch) -> None:
    gpqa(monkeypatch, [ROW | {"Record ID": f"rec{number}", "Incorrect Answer 3": "w3"} for number in range(6)])
    benchmark = load_benchmark("gpqa_diamond_openai", render, limit=4, samples=1, seed=3)
    assert benchmark.multiple_choice
    assert [question.id for question in benchmark.questions] == ["rec0", "rec1", "rec2", "rec3"]
    assert benchmark.questions[0].prompt.startswith("Which?\n\nA) ")
    assert benchmark.questions[0].prompt.endswith(">")
    assert len(benchmark.questions[0].choices) == 4


def test_questions_that_lie_in_the_hubs_cache_are_read_without_a_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "tables")
    repository = tmp_path / "datasets--Idavidrein--gpqa"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    # As GPQA has it: a configuration for each of its files.
    names = ("gpqa_main", "gpqa_diamond")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in names)
    (snapshot / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    for name in names:
        (snapshot / f"{name}.csv").write_text(f"{','.join(ROW)}\n{name},{','.join(list(ROW)[1:])}\n")
    benchmark = load_benchmark("gpqa_diamond_openai", render, limit=None, samples=1, seed=3)
    assert [question.id for question in benchmark.questions] == ["gpqa_diamond"]
    asked = {"split": "train", "path": "Idavidrein/gpqa", "name": "gpqa_main", "seed": 3}
    assert list(load_choice(**asked, revision="a" * 40)["train"]["question_id"]) == ["gpqa_main"]
    with pytest.raises(BadInput, match="Idavidrein/gpqa is neither"):
        load_choice(**asked, revision="b" * 40)
    with pytest.raises(BadInput, match="Idavidrein/gpqa is neither"):
        load_math(split="train", path="Idavidrein/gpqa", revision="b" * 40)
    with pytest.raises(BadInput, match=r"aime24_nofigures: simplescaling/aime24_nofigures .* hub cannot be reached"):
        load_benchmark("aime24_nofigures", render, limit=None, samples=1, seed=3)


@pytest.mark.parametrize("name", ["aime24_nofigures", "aime25_nofigures", "openai_math"])
def test_the_math_tasks_ask_the_problem_verbatim(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = "Find {{x}} such that $x = 1$.\n"
    gpqa(monkeypatch, [{"problem": problem, "solution": "", "answer": "033"}])
    benchmark = load_benchmark(name, render, limit=None, samples=1, seed=0)
    (question,) = benchmark.questions
    assert (question.prompt, question.gold) == (problem + ">", "33")


def test_lm_eval_counts_every_sample_by_our_grades(world: World) -> None:
    benchmark = load_benchmark("mini_hard", render, limit=4, samples=2, seed=0)
    texts = [["\\boxed{0}", "\\boxed{1}"], ["Answer: 1", "1"], ["", "no"], ["<|im_start|>answer\n3", "\\boxed{3}"]]
    answers: dict[tuple[str, int], Sequence[str]] = {("mini_hard", number): pair for number, pair in enumerate(texts)}
    for asked, right in ((1, 0.5), (2, 1.5), (3, 1.5), (4, 2.5)):
        found = evaluate_answers([benchmark], render, answers, asked)["mini_hard"]
        assert found["exact_match,samples"] == pytest.approx(right / asked)


def test_process_results_names_both_gpqa_rules() -> None:
    document = {"answer": "A", "choices": []}
    assert choice_results(document, [["cut off"]]) == {"exact_match": 1.0, "strict_match": 0.0}
    assert choice_results(document, [["\\boxed{A}"]]) == {"exact_match": 1.0, "strict_match": 1.0}
    assert math_results({"answer": "7"}, [["\\boxed{7}", "\\boxed{8}"]]) == {"exact_match": 0.5, "strict_match": 0.5}


def test_equal_problems_keep_their_own_ids(world: World, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = world.root / "project/resources/mini_world/data/hard/test.parquet"
    pq.write_table(pa.table({"problem": ["same", "same", "other"], "answer": ["1", "1", "2"]}), file)
    ids = [question.id for question in load_benchmark("mini_hard", render, limit=None, samples=1, seed=0).questions]
    assert len(set(ids)) == 3
