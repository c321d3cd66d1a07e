"""A benchmark of the user's own: what it is made of enters the cache key, as the shipped ones' files do not."""

from pathlib import Path

import pytest

from assets.benchmarks import config
from assets.benchmarks.config import SHIPPED, BenchmarksConfig, task_names
from resources.errors import BadInput
from resources.fingerprints import fingerprints
from resources.keys import section_version
from resources.sources import PROJECT, check_source, local_folder

TASK = """
task: mine
include: base.yaml
custom_dataset: !function reader.load
dataset_kwargs:
  parquet: {parquet}
  split: test
doc_to_text: problem
process_results: !function assets.benchmarks.documents.math_results
"""
BASE = """
dataset_path: json
dataset_kwargs:
  data_files: {{train: "{folder}/*.json", test: [https://somewhere/test.json]}}
  data_dir: ""
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tasks with one called `mine`, whose data lie beside it."""
    tasks, data = tmp_path / "tasks", tmp_path / "data"
    for folder in (tasks, data, data / "lines"):
        folder.mkdir()
    (tasks / "mine.yaml").write_text(TASK.format(parquet=data / "mine.parquet"))
    (tasks / "base.yaml").write_text(BASE.format(folder=data / "lines"))
    (tasks / "reader.py").write_text("def load(): ...")
    (data / "mine.parquet").write_bytes(b"rows")
    (data / "lines" / "a.json").write_text("{}")
    monkeypatch.setattr(config, "TASK_FOLDER", tasks)
    return tasks


def _version() -> str:
    section = BenchmarksConfig(tasks=("mine",))
    return section_version("benchmarks", section.model_dump(mode="json"), fingerprints(section.sources()))


def test_a_benchmark_of_ones_own_is_made_of_its_task_file_and_of_what_that_names(tasks: Path) -> None:
    data = tasks.parent / "data"
    expected = [tasks / "mine.yaml", tasks / "reader.py", data / "mine.parquet", tasks / "base.yaml", data / "lines"]
    sources = BenchmarksConfig(tasks=("mine",)).sources()
    assert sources == tuple(map(str, expected))
    # Nobody looks for them at the hub.
    assert [local_folder(name) for name in sources] == expected
    for name in sources:
        check_source(name)


@pytest.mark.parametrize(
    "name",
    [*(f"tasks/{name}" for name in ("mine.yaml", "base.yaml", "reader.py")),
     *(f"data/{name}" for name in ("mine.parquet", "lines/a.json", "lines/new.json"))],
)  # fmt: skip
def test_an_edit_of_any_of_them_is_another_version(tasks: Path, name: str) -> None:
    before = _version()
    with (tasks.parent / name).open("a") as file:
        file.write("\n# edited")
    assert _version() != before


def test_repositories_are_asked_for_at_the_commit_that_is_named(tasks: Path) -> None:
    (tasks / "base.yaml").write_text("dataset_path: someone/one\ndataset_kwargs: {data_files: a.json}\n")
    (tasks / "mine.yaml").write_text("include: base.yaml\ndataset_kwargs: {path: someone/two, revision: abc}\n")
    assert BenchmarksConfig(tasks=("mine",)).repositories() == (("someone/one", "main"), ("someone/two", "abc"))


def test_a_file_beside_them_that_nobody_names_is_no_part_of_it(tasks: Path) -> None:
    before = _version()
    (tasks / "other.yaml").write_text("task: other")
    (tasks.parent / "data" / "other.parquet").touch()
    assert _version() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [("task: [", "not YAML"), ("- mine", "expected a task"), ("include: none.yaml", "none.yaml cannot be read")],
)
def test_a_task_file_that_cannot_be_read_is_named(tasks: Path, text: str, said: str) -> None:
    (tasks / "mine.yaml").write_text(text)
    with pytest.raises(BadInput, match=said):
        BenchmarksConfig(tasks=("mine",)).sources()


@pytest.mark.parametrize("text", ["dataset_path: {}/none", "dataset_kwargs: {{data_files: [a/b, '{}/none/*.json']}}"])
def test_data_on_a_disk_that_is_not_mounted_are_missed_instead_of_changing_the_key(tasks: Path, text: str) -> None:
    (tasks / "mine.yaml").write_text(text.format(tasks))
    with pytest.raises(BadInput, match=r"mine.yaml names '.*/none', which is not there: is its disk mounted\?"):
        BenchmarksConfig(tasks=("mine",)).sources()


def test_a_text_that_cannot_be_a_path_is_no_data(tasks: Path) -> None:
    (tasks / "mine.yaml").write_text(f"dataset_kwargs: {{a: {'x' * 5000}, b: ~nobody-here/x, c: ., d: 3}}")
    assert BenchmarksConfig(tasks=("mine",)).sources() == (str(tasks / "mine.yaml"),)


def test_a_task_inside_the_project_is_named_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "SHIPPED", ())
    own = BenchmarksConfig(tasks=("mini_hard",)).sources()
    assert own[-2:] == ("assets/benchmarks/tasks/mini_hard.yaml", "resources/mini_world/data/hard/test.parquet")


def test_the_keys_of_the_shipped_benchmarks_know_no_task_file() -> None:
    tracked = {path.stem for path in (PROJECT / "assets/benchmarks/tasks").glob("*.yaml")}
    assert set(SHIPPED) <= tracked == set(task_names())
    assert BenchmarksConfig(tasks=tuple(n for n in SHIPPED if not n.startswith("mini_"))).sources() == ()
    assert BenchmarksConfig(tasks=("mini_hard",)).sources() == ("resources/mini_world/data/hard",)
