"""A malformed experiment is refused with file, line, offending key and the nearest valid one; the others go on."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.experiment import ALL_SECTIONS, Experiments
from resources.errors import BadInput


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, name: str) -> str:
    with pytest.raises(BadInput) as caught:
        Experiments(folder).load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_child_overrides_single_knobs_of_its_ancestors(tmp_path: Path) -> None:
    write(tmp_path, "root", "sae:\n  k: 4\n  seed: 7\n")
    write(tmp_path, "middle", "extends: root\nsae:\n  k: 8\n")
    write(tmp_path, "leaf", "extends: middle\nlora:\n  rank: 2\n")
    leaf = Experiments(tmp_path).load("leaf")
    assert (leaf.values("sae")["k"], leaf.values("sae")["seed"], leaf.values("lora")["rank"]) == (8, 7, 2)
    assert leaf.parent == "middle"
    assert [path.stem for path in leaf.files] == ["leaf", "middle", "root"]


def test_hidden_files_are_no_experiments(tmp_path: Path) -> None:
    write(tmp_path, "mini", "sae:\n  k: 4\n")
    (tmp_path / ".#mini.yaml").symlink_to("somebody@host.123")  # Emacs, while the file is being edited
    write(tmp_path, ".mini", "")
    assert Experiments(tmp_path).names() == ["mini"]


def test_what_no_file_names_is_the_papers_value(tmp_path: Path) -> None:
    write(tmp_path, "bare", "description: nothing else\n")
    bare = Experiments(tmp_path).load("bare")
    assert bare.values("model")["name"] == "Qwen/Qwen2.5-32B-Instruct"
    assert bare.values("sae")["k"] == 16


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("sea:\n  k: 4\n", 1, "unknown section 'sea'; did you mean 'sae'?"),
        ("sae:\n  seed: 1\n  kk: 4\n", 3, "unknown key 'sae.kk'; did you mean 'k'?"),
        ("sae:\n  k: many\n", 2, "sae.k: Input should be a valid integer"),
        ("sae:\n  k: 0\n", 2, "sae.k: Input should be greater than"),
        ("sae:\n  k: 1.5\n", 2, "sae.k: Input should be a valid integer"),
        ("sae:\n  k: .nan\n", 2, "sae.k: Input should be a valid integer"),
        ("lora:\n  learning_rate: nan\n", 2, "lora.learning_rate: Input should be"),
        ("sae:\nk: 4\n", 2, "unknown section 'k'; it is a knob of sae and contexts: put it below, indented"),
        ("sae:\n  k:\n", 2, "sae.k: Input should be a valid integer (given: null)"),
        ("steering:\n  units: [x, y]\n", 2, "(given: [x, y])"),
        ("steering:\n  factors: []\n", 2, "steering.factors: List should have at least 1 item"),
        ("sae: 4\n", 1, "'sae' is a section: put its knobs below it"),
        ("sae: [k]\n", 1, "'sae' is a section"),
        ("description: x\nextends: nobody\n", 2, "`extends: nobody` is no experiment"),
        ("extends: [mini]\n", 1, "`extends` takes the name of one experiment"),
        ("extends: ../secret\n", 1, "is no experiment in"),
        ("materialize: now\n", 1, "`materialize` is auto or manual"),
        ("description: {a: b}\n", 1, "`description` takes text"),
        ("Model:\n  name: x\n", 1, "unknown section 'Model'; did you mean 'model'?"),
        ("mоdel:\n  name: x\n", 1, "unknown section 'mоdel'; did you mean 'model'?"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_nearest_valid_word(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    path = write(tmp_path, "wrong", text)
    message = refusal(tmp_path, "wrong")
    assert message.startswith(f"{path}:{line}: ")
    assert says in message


def test_a_mistake_inherited_from_a_parent_is_named_in_the_parents_file(tmp_path: Path) -> None:
    parent = write(tmp_path, "parent", "\nsae:\n  k: -1\n")
    write(tmp_path, "child", "extends: parent\n")
    assert refusal(tmp_path, "child").startswith(f"{parent}:3: sae.k: ")


def test_a_circle_of_extends_is_drawn(tmp_path: Path) -> None:
    write(tmp_path, "a", "extends: b\n")
    path = write(tmp_path, "b", "extends: a\n")
    assert refusal(tmp_path, "a") == f"{path}:1: `extends` goes round in a circle: a -> b -> a"


@pytest.mark.parametrize("name", ["two words", "a,b", "-x", ".hidden", "x" * 101, "ünï"])
def test_a_file_name_that_cannot_be_a_partition_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "description: x\n")
    assert "cannot name an experiment" in refusal(tmp_path, name)


def test_an_unknown_experiment_is_told_with_its_nearest_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "mini-k8", "description: x\n")
    assert refusal(tmp_path, "mini-k9") == f"'mini-k9' is no experiment in {tmp_path}; did you mean 'mini-k8'?"


@pytest.mark.parametrize("one", ["k: 8", "k: '8'", "k: 8 # comment", '"k": 8', "k: 8.0", "k: 08"])
def test_writing_style_does_not_change_a_version(tmp_path: Path, one: str) -> None:
    write(tmp_path, "plain", "sae:\n  k: 8\n  seed: 3\n")
    write(tmp_path, "styled", f"# comment\nsae:\n  seed: 3\n  {one}\n")
    folder = Experiments(tmp_path)
    assert folder.load("plain").versions == folder.load("styled").versions


def test_1e_minus_3_and_0_001_are_one_number(tmp_path: Path) -> None:
    write(tmp_path, "a", "lora:\n  learning_rate: 1e-3\n")
    write(tmp_path, "b", "lora:\n  learning_rate: 0.001\n")
    folder = Experiments(tmp_path)
    assert folder.load("a").versions == folder.load("b").versions


def test_where_it_runs_is_not_in_any_version(tmp_path: Path) -> None:
    write(tmp_path, "a", "compute:\n  processes: 1\n")
    write(tmp_path, "b", "compute:\n  processes: 8\n  profile: cpu\n")
    folder = Experiments(tmp_path)
    assert folder.load("a").versions == folder.load("b").versions


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from([*ALL_SECTIONS, "extends", "oops", "materialize"]),
        st.one_of(st.text(max_size=8), st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=2)),
        max_size=3,
    )
)
def test_any_mapping_is_an_experiment_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    import json

    folder = tmp_path_factory.mktemp("fuzz")
    path = write(folder, "e", json.dumps(values))
    try:
        assert Experiments(folder).load("e").name == "e"
    except BadInput as error:
        assert str(path) in str(error) or "'e'" in str(error)
        assert "\n" not in str(error)
