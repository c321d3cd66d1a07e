"""A sweep is a file per combination of values, or one clear sentence and no file at all."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.experiment import Experiments
from dagster_project.sweep import Knob, parse_knob, write_sweep
from resources.errors import BadInput


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    (tmp_path / "mini.yaml").write_text("sae:\n  k: 4\n  epochs: 3\n")
    return Experiments(tmp_path)


def test_every_combination_is_a_valid_experiment_that_extends_its_parent(experiments: Experiments) -> None:
    knobs = [parse_knob("sae.k=2,8"), parse_knob("lora.epochs=1"), parse_knob("sae.seed=1,2")]
    names = write_sweep(experiments, "mini", knobs)
    assert names == [f"mini-k{k}-epochs1-seed{seed}" for k in (2, 8) for seed in (1, 2)]
    assert set(experiments.names()) == {"mini", *names}
    last = experiments.load("mini-k8-epochs1-seed2")
    assert last.parent == "mini"
    assert [last.values("sae")[name] for name in ("k", "seed", "epochs")] == [8, 2, 3]
    assert last.values("lora")["epochs"] == 1
    assert write_sweep(experiments, "mini", knobs) == names


def test_a_knob_that_two_sections_have_says_whose_it_is(experiments: Experiments) -> None:
    knobs = [parse_knob("sae.seed=1"), parse_knob("lora.seed=2"), parse_knob("sae.k=3")]
    [name] = write_sweep(experiments, "mini", knobs)
    assert name == "mini-sae.seed1-lora.seed2-k3"
    assert [experiments.load(name).values(section)["seed"] for section in ("sae", "lora")] == [1, 2]


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (["sae.kk=2"], "unknown key 'sae.kk'; did you mean 'k'"),
        (["sae.k=2,0"], "sae.k: "),
        (["saee.k=2"], "unknown section 'saee'; did you mean 'sae'"),
        (["sae.k=3,2,2.0"], "mini-k2 and mini-k2.0 are the same experiment, written twice"),
        (["sae.seed=" + ",".join(map(str, range(1001)))], "1001 experiments, at most 1000"),
    ],
)
def test_a_sweep_with_one_invalid_file_writes_none(experiments: Experiments, knobs: list[str], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        write_sweep(experiments, "mini", [parse_knob(knob) for knob in knobs])
    assert said in str(caught.value)
    assert experiments.names() == ["mini"]


def test_a_file_of_somebody_elses_is_never_written_over(experiments: Experiments) -> None:
    theirs = experiments.folder / "mini-k2.yaml"
    theirs.write_text("sae:\n  k: 3\n")
    with pytest.raises(BadInput, match=r"mini-k2\.yaml exists and says something else"):
        write_sweep(experiments, "mini", [parse_knob("sae.k=2,8")])
    assert theirs.read_text() == "sae:\n  k: 3\n"
    assert experiments.names() == ["mini", "mini-k2"]


def test_a_disk_that_fills_up_in_the_middle_of_a_sweep_leaves_no_file(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full_at_the_second(file: int) -> None:
        if "k8" in Path(f"/proc/self/fd/{file}").readlink().name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        write_sweep(experiments, "mini", [parse_knob("sae.k=2,8,9")])
    assert [path.name for path in experiments.folder.iterdir()] == ["mini.yaml"]


@pytest.mark.parametrize("text", ["sae.k", "sae=2", "sae.k=", "sae.k=2,,8", "sae.k=a/b", "sae.k={a: 1}", "sae.k=2\n"])
def test_what_is_no_knob_with_values_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"write it like sae\.k=2,4,8"):
        parse_knob(text)


@given(st.lists(st.from_regex(r"[A-Za-z0-9._+-]+", fullmatch=True), min_size=1, unique=True))
def test_values_are_kept_as_written(values: list[str]) -> None:
    assert parse_knob(f"sae.k={','.join(values)}") == Knob("sae", "k", tuple(values))
