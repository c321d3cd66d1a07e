"""Whatever a file holds, it is an experiment or it is refused in one clear line, and nobody else notices."""

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.experiment import ALL_SECTIONS, Experiment, Experiments
from dagster_project.plan import plan
from resources.errors import BadInput
from resources.sources import PROJECT
from resources.store import Store
from tests.faults.nasty_experiments import GOOD, LANGUAGE, REFUSED
from tests.sensors.ticks import tick

MINI = (PROJECT / "experiments" / "mini.yaml").read_text()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every nasty file in one folder, beside three good ones and their parent."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "mini.yaml").write_text(MINI)
    for name, content in GOOD.items():
        (folder / f"{name}.yaml").write_bytes(content)
    for name, (content, _, _) in REFUSED.items():
        (folder / f"{name}.yaml").write_bytes(content)
    return folder


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def refusal(folder: Path, name: str) -> str:
    """What is said of a file that is no experiment; fails when it is one, or when what is said is no line."""
    with pytest.raises(BadInput) as caught:
        _ = Experiments(folder).load(name).versions
    message = str(caught.value)
    assert message.isprintable(), repr(message)
    assert len(message) < 1200, message
    return message


def test_the_corpus_holds_eighty_files_and_no_name_twice() -> None:
    assert len(REFUSED) >= 80


@pytest.mark.parametrize("name", REFUSED)
def test_a_nasty_file_is_refused_in_one_line_with_file_and_line(corpus: Path, name: str) -> None:
    _, line, words = REFUSED[name]
    message = refusal(corpus, name)
    if not words.startswith("{}"):
        assert message.startswith(f"{corpus / name}.yaml:{line}: ")
    assert words.replace("{}", str(corpus)) in message


@pytest.mark.parametrize("name", GOOD)
def test_windows_line_ends_marks_and_quotes_are_no_mistake(corpus: Path, name: str) -> None:
    assert Experiments(corpus).load(name).versions == Experiments(corpus).load("good").versions
    assert Experiments(corpus).load(name).values("sae")["k"] == 8


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "a\udcffb", "x" * 200, "~", "..", "-rf", "a b"])
def test_a_nasty_file_name_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.yaml").write_text(MINI)
    assert "cannot name an experiment" in refusal(tmp_path, name)


def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nothing")
    (tmp_path / "round.yaml").symlink_to(tmp_path / "round.yaml")
    for name in Experiments(tmp_path).names():
        assert "is no experiment in" in refusal(tmp_path, name)


def test_the_sensor_registers_the_good_files_alone_and_goes_on_after_naming_the_bad(
    corpus: Path, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASCOPE_EXPERIMENTS", str(corpus))
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    assert first.dynamic_partitions_requests is not None
    registered = {key for request in first.dynamic_partitions_requests for key in request.partition_keys or ()}
    assert registered == {"mini", *GOOD}
    assert {event.partition for event in first.asset_events} == registered
    with pytest.raises(BadInput) as caught:
        tick(instance, first.cursor)
    assert f"{len(REFUSED)} experiment files cannot be used" in str(caught.value)
    assert len(str(caught.value)) < 20_000
    late = corpus / "late.yaml"
    late.write_text("extends: mini\nsae:\n  k: 2\n")
    try:
        second = tick(instance, first.cursor)
    finally:
        late.unlink()
    assert isinstance(second, dg.SensorResult)
    assert {event.partition for event in second.asset_events} == {"late"}


@pytest.mark.parametrize(
    "text",
    [
        "interpretations:\n  provider: openai\n  model: no-such-model\n",
        "interpretations:\n  provider: openai\n  prompt: nothing\n",
        "model:\n  name: {folder}\n",
    ],
)
def test_a_file_that_only_the_plan_can_refuse_is_not_registered_and_stops_nobody(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"hidden_size": "many"')
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "mini.yaml").write_text(MINI)
    (folder / "bad.yaml").write_text(f"extends: mini\n{text.replace('{folder}', str(model))}")
    monkeypatch.setenv("LORASCOPE_EXPERIMENTS", str(folder))
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    assert {event.partition for event in first.asset_events} == {"mini"}
    with pytest.raises(BadInput) as caught:
        tick(instance, first.cursor)
    assert "bad" in str(caught.value)
    assert "\n" not in str(caught.value)


NASTY = st.one_of(
    st.text(max_size=30),
    st.sampled_from([content.decode("utf-8", "replace")[:200] for content, _, _ in LANGUAGE.values()]),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["~root/x", "/", "..", "[1, [2]]", "{a: {b: c}}", "&a", "*a", "!!x y", "|\n  x", "- a", "'", '"']),
)


def load(folder: Path, content: bytes) -> Experiment | None:
    """The experiment, or None when it is refused in a line that names a file."""
    (folder / "e.yaml").write_bytes(content)
    try:
        found = Experiments(folder).load("e")
        plan(found, Store(folder / "store"))
    except BadInput as error:
        message = str(error)
        assert message.isprintable(), repr(message)
        assert len(message) < 1200
        return None
    return found


@given(st.dictionaries(st.sampled_from([*ALL_SECTIONS, "extends", "other"]), NASTY, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_any_value_under_any_knob_gives_an_experiment_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, sections: dict[str, str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    lines = []
    for section, value in sections.items():
        knobs = list(ALL_SECTIONS[section].model_fields) if section in ALL_SECTIONS else ["x"]
        lines.append(f"{section}:\n  {data.draw(st.sampled_from(knobs))}: {value}\n")
    load(folder, "".join(lines).encode("utf-8", "surrogatepass"))


@given(st.integers(0, len(MINI)), st.integers(0, 40), st.binary(max_size=20))
@settings(max_examples=150, deadline=None)
def test_a_damaged_copy_of_a_real_experiment_gives_an_experiment_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, begin: int, cut: int, put: bytes
) -> None:
    content = MINI.encode()
    load(tmp_path_factory.mktemp("fuzz"), content[:begin] + put + content[begin + cut :])


@given(
    st.lists(NASTY, max_size=12), st.lists(st.sampled_from(["\n", "\n  ", ": ", " ", "\r\n", "\t", ""]), max_size=12)
)
@settings(max_examples=150, deadline=None)
def test_pieces_of_yaml_in_any_order_give_an_experiment_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], joins: list[str]
) -> None:
    text = "".join(piece + join for piece, join in zip(pieces, joins, strict=False))
    load(tmp_path_factory.mktemp("fuzz"), re.sub("x", "sae", text).encode("utf-8", "surrogatepass"))
