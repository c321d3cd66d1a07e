"""What the page on own things shows can be used: its task file, with each loader and its columns, and its asset."""

import re
from pathlib import Path
from runpy import run_path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.benchmarks import harness
from assets.benchmarks.documents import ANSWER, CHOICES, QUESTION
from dagster_project import open_experiment
from dagster_project.instance import opened
from resources.sources import PROJECT
from tests.assets.benchmarks.test_harness import gpqa, render
from tests.installation import Installation

PAGE = (PROJECT / "docs" / "how-to" / "own.md").read_text()
(TASK,) = re.findall(r"^```yaml\n(# assets/benchmarks/tasks/my_problems.yaml\n.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(ASSET,) = re.findall(r"^```python\n(# my_assets.py\n.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LOADERS = re.findall(r"^\| `(load_\w+)` \| `(\w+_results)` \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "TASK_FOLDER", tmp_path)
    return tmp_path


def load(tasks: Path, text: str) -> harness.Benchmark:
    (tasks / "my_problems.yaml").write_text(text.replace("/data/my_problems.parquet", str(tasks / "mine.parquet")))
    return harness.load_benchmark("my_problems", render, limit=None, samples=1, seed=0)


def test_the_task_file_of_the_page_loads_a_table_of_ones_own(tasks: Path) -> None:
    pq.write_table(pa.table({"id": [0, 1], "question": ["What?", "Else?"], "answer": [4, 5]}), tasks / "mine.parquet")
    found = load(tasks, TASK)
    assert [(one.id, one.prompt, one.gold) for one in found.questions] == [("0", "What?>", "4"), ("1", "Else?>", "5")]


@pytest.mark.parametrize(("loader", "grader", "reads", "columns"), LOADERS, ids=[row[0] for row in LOADERS])
def test_each_loader_reads_what_the_page_says(
    loader: str, grader: str, reads: str, columns: str, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TASK.replace("load_math", loader).replace("math_results", grader)
    named = re.findall(r"`([^`]+)`", columns)
    if loader == "load_choice":
        assert named == ["Question", *CHOICES]
        gpqa(monkeypatch, [dict.fromkeys(named, "text")])
        text = text.replace("parquet: /data/my_problems.parquet", "path: someone/gpqa\n  name: diamond")
    else:
        assert "`parquet`" in reads
        assert named in ([*QUESTION, *ANSWER], [])
        pq.write_table(pa.table({QUESTION[0]: ["What?"], ANSWER[0]: ["A"]}), tasks / "mine.parquet")
    found = load(tasks, text)
    assert found.multiple_choice is (grader == "choice_results")
    assert len(found.questions) == 1


def test_the_page_knows_every_loader() -> None:
    source = (PROJECT / "assets" / "benchmarks" / "documents.py").read_text()
    assert {row[0] for row in LOADERS} == set(re.findall(r"^def (load_\w+)", source, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_asset_of_the_page_is_materialised_from_an_experiments_artifacts(
    tiny: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "my_assets.py").write_text(ASSET.replace('"Wait"', '""'))
    written = run_path(str(tmp_path / "my_assets.py"))
    with opened(tiny.home / "dagster") as instance:
        done = dg.materialize([written["wait_latents"]], partition_key="tiny", instance=instance)
    (made,) = done.asset_materializations_for_node("wait_latents")
    kinds = open_experiment("tiny").interpretations.table()["kind"].to_pylist()
    assert made.metadata["how many"].value == kinds.count("latent") > 0
