"""Where rows come from: the pinned commit and no other, and the bytes that the key was made of."""

import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.dataset.config import DatasetConfig
from assets.dataset.source import load_source, read_rows
from resources.errors import BadInput
from tests.mounts import mount, unmount

REPOSITORY = "someone/traces"


def write(folder: Path, question: str) -> None:
    rows = {"question": question, "solution": "4", "deepseek_thinking_trajectory": "two", "deepseek_attempt": "4"}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: [text] for name, text in rows.items()}), folder / "train.parquet")


def questions(source: Path | str, revision: str = "a" * 40) -> list[str]:
    return load_source(DatasetConfig(source=str(source), revision=revision))["question"][:]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub is away; its cache holds commits a and b, and the library's own tables are those of b."""
    monkeypatch.setattr("resources.hub.hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "tables")
    for name in "ab":
        write(tmp_path / "datasets--someone--traces" / "snapshots" / (name * 40), f"row of commit {name}")
    prepare_tables(tmp_path / "datasets--someone--traces" / "snapshots" / ("b" * 40), tmp_path)
    return tmp_path


def prepare_tables(snapshot: Path, folder: Path) -> None:
    """What `load_dataset(REPOSITORY)` leaves behind, which it takes for any revision while the hub is away."""
    builder = datasets.load_dataset_builder(str(snapshot), cache_dir=str(folder / "made"))
    builder.dataset_name = "traces"
    builder.download_and_prepare(str(folder / "tables" / "someone___traces" / "default" / "0.0.0" / "c0ffee"))


def test_a_pinned_commit_is_read_though_tables_of_another_one_are_newer(hub_cache: Path) -> None:
    assert questions(REPOSITORY, "a" * 40) == ["row of commit a"]
    assert questions(REPOSITORY, "b" * 40) == ["row of commit b"]


def test_a_commit_that_is_not_here_is_refused_though_another_one_is(hub_cache: Path) -> None:
    with pytest.raises(BadInput, match="neither a local folder nor whole in the local hub cache"):
        questions(REPOSITORY, "c" * 40)


@pytest.mark.parametrize("name", ["a?b", "a*b", "[ab]"])
def test_a_folder_whose_name_is_a_pattern_is_refused_instead_of_read_with_those_beside_it(
    name: str, tmp_path: Path
) -> None:
    write(tmp_path / name, "asked for")
    write(tmp_path / "a1b", "beside it")
    with pytest.raises(BadInput, match="has a pattern in its name"):
        questions(tmp_path / name)


def test_a_folder_is_read_again_when_its_bytes_change_and_its_times_do_not(tmp_path: Path) -> None:
    for question in "ab":
        write(tmp_path, question)
        os.utime(tmp_path / "train.parquet", (1e9, 1e9))
        assert questions(tmp_path) == [question]


@pytest.mark.parametrize(
    ("given", "kept"), [([0, 7, None], ["0", "7", ""]), ([0.5, float("nan"), None], ["0.5", "", ""])]
)
def test_a_solution_of_zero_is_kept_and_a_missing_one_is_empty(
    tmp_path: Path, given: list[float | None], kept: list[str]
) -> None:
    text = ["x"] * len(given)
    columns = {"question": text, "deepseek_thinking_trajectory": text, "deepseek_attempt": text}
    pq.write_table(pa.table({**columns, "solution": given}), tmp_path / "train.parquet")
    config = DatasetConfig(source=str(tmp_path))
    assert [row.solution for row in read_rows(load_source(config), config, [])] == kept


@pytest.mark.parametrize(
    ("column", "values", "kind"), [("attempt", [1, 2], "int64"), ("thinking", [["a"], ["b"]], "list")]
)
def test_a_column_that_holds_no_text_is_called_that_and_not_missing(
    tmp_path: Path, column: str, values: list[object], kind: str
) -> None:
    columns = {name: ["x", "y"] for name in ("question", "thinking", "attempt")} | {column: values}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    config = DatasetConfig(
        source=str(tmp_path), thinking_column="thinking", attempt_column="attempt", solution_column=None
    )
    with pytest.raises(BadInput, match=f"column {column} of {tmp_path} is {kind}.*, not text: "):
        load_source(config)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_is_read_however_it_is_stored(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {name: pa.array(["x", None]).cast(kind) for name in ("question", "thinking", "attempt")}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    config = DatasetConfig(
        source=str(tmp_path), thinking_column="thinking", attempt_column="attempt", solution_column=None
    )
    skipped = []
    assert len(list(read_rows(load_source(config), config, skipped))) == 1
    assert [one.reason for one in skipped] == ["no question and no trajectory and no attempt"]


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    row = {"question": "café", "solution": "", "deepseek_thinking_trajectory": "x", "deepseek_attempt": "x"}
    (tmp_path / "train.jsonl").write_bytes(json.dumps(row, ensure_ascii=False).encode("latin-1"))
    config = DatasetConfig(source=str(tmp_path))
    with pytest.raises(BadInput, match=rf"{tmp_path} holds text that is not UTF-8 \("):
        list(read_rows(load_source(config), config, []))


def test_a_file_without_a_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(BadInput, match=f"the files of {tmp_path} hold no row"):
        load_source(DatasetConfig(source=str(tmp_path)))


def test_a_cache_of_the_hub_that_has_no_room_for_the_table_is_not_put_down_to_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"question": "q", "solution": "s", "deepseek_thinking_trajectory": "t" * 100_000, "deepseek_attempt": "a"}
    pq.write_table(pa.Table.from_pylist([row] * 20), tmp_path / "rows.parquet")
    cache = tmp_path.with_name("cache")
    mount(cache, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    try:
        with pytest.raises(BadInput, match=r"^no table of .* the disk of the hub's cache is full: .* set HF_HOME"):
            load_source(DatasetConfig(source=str(tmp_path)))
    finally:
        unmount(cache)


@pytest.mark.parametrize("splits", [False, True])
def test_a_folder_of_save_to_disk_is_told_what_to_write_instead(tmp_path: Path, splits: bool) -> None:
    rows = datasets.Dataset.from_dict({"question": ["a"]})
    (datasets.DatasetDict({"train": rows}) if splits else rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(BadInput, match=r"saved was written by save_to_disk: write it as Parquet \(to_parquet\)"):
        questions(tmp_path / "saved")


def test_columns_that_nobody_asked_for_are_not_decoded(tmp_path: Path) -> None:
    names = ("question", "deepseek_thinking_trajectory", "deepseek_attempt", "solution", "image")
    features = datasets.Features({name: datasets.Value("string") for name in names[:-1]} | {"image": datasets.Image()})
    row = {name: "x" for name in names[:-1]} | {"image": {"bytes": b"no picture", "path": None}}
    datasets.Dataset.from_list([row], features=features).to_parquet(tmp_path / "train.parquet")
    config = DatasetConfig(source=str(tmp_path))
    assert [row.rollout.question for row in read_rows(load_source(config), config, [])] == ["x"]
