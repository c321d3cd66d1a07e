"""Experiment files become partitions and observations within one tick, and a bad file stops nobody else."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import sensors.experiments
from assets.sections import SECTIONS
from dagster_project.experiment import Experiments
from resources.errors import BadInput
from sensors.experiments import NAMED, PER_TICK, noted
from tests.sensors.ticks import tick


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiments folder that the sensor reads."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    monkeypatch.setenv("LORASCOPE_EXPERIMENTS", str(folder))
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def observed(result: dg.SensorResult | dg.SkipReason) -> dict[str, str]:
    """Section -> data version."""
    assert isinstance(result, dg.SensorResult)
    observations = [event for event in result.asset_events if isinstance(event, dg.AssetObservation)]
    return {event.asset_key.path[-1]: event.tags["dagster/data_version"] for event in observations}


def test_a_new_file_is_registered_and_every_section_observed_in_one_tick(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    (folder / "one.yaml").write_text("sae:\n  k: 4\n")
    result = tick(instance, None)
    assert isinstance(result, dg.SensorResult)
    assert result.dynamic_partitions_requests is not None
    assert [request.partition_keys for request in result.dynamic_partitions_requests] == [["one"]]
    assert observed(result) == Experiments(folder).load("one").versions
    assert set(observed(result)) == set(SECTIONS)
    assert not result.run_requests


def test_an_unchanged_folder_gives_a_skip_and_an_edit_observes_only_what_it_touches(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    (folder / "one.yaml").write_text("sae:\n  k: 4\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    assert isinstance(tick(instance, first.cursor), dg.SkipReason)
    (folder / "one.yaml").write_text("sae:\n  k: 8 # edited\n")
    second = tick(instance, first.cursor)
    assert set(observed(second)) == {"sae"}
    assert observed(second)["sae"] != observed(first)["sae"]


def test_a_tick_that_takes_files_names_them_where_dagster_would_call_its_result_empty(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    (folder / "one.yaml").write_text("sae:\n  k: 4\n")
    (folder / "two.yaml").write_text("extends: one\n")
    result = tick(instance, None)
    assert isinstance(result, dg.SensorResult)
    assert result.skip_reason is not None
    assert result.skip_reason.skip_message == "new or edited: one, two"


def test_editing_a_parent_observes_its_children_too(folder: Path, instance: dg.DagsterInstance) -> None:
    (folder / "a.yaml").write_text("sae:\n  k: 4\n")
    (folder / "b.yaml").write_text("extends: a\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    (folder / "a.yaml").write_text("sae:\n  k: 80\n")
    second = tick(instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert {event.partition for event in second.asset_events} == {"a", "b"}


def test_an_invalid_file_lets_the_others_through_and_then_fails_the_tick_with_its_reason(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    (folder / "bad.yaml").write_text("sae:\n  kk: 4\n")
    (folder / "good.yaml").write_text("sae:\n  k: 4\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    assert {event.partition for event in first.asset_events} == {"good"}
    with pytest.raises(BadInput, match=r"bad.yaml:2: unknown key 'sae.kk'; did you mean 'k'"):
        tick(instance, first.cursor)


def test_a_parent_that_is_deleted_fails_the_tick_with_its_childrens_names(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    (folder / "parent.yaml").write_text("sae:\n  k: 4\n")
    (folder / "child.yaml").write_text("extends: parent\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    (folder / "parent.yaml").unlink()
    with pytest.raises(
        BadInput, match=r"^1 experiment files cannot be used: .*child.yaml:1: `extends: parent` is no exp"
    ):
        tick(instance, first.cursor)


@pytest.mark.parametrize(("bad", "more"), [(NAMED, ""), (NAMED + 2, "; and 2 more")])
def test_of_many_invalid_files_the_first_are_named_and_the_others_counted(
    folder: Path, instance: dg.DagsterInstance, bad: int, more: str
) -> None:
    for number in range(bad):
        (folder / f"bad-{number:02d}.yaml").write_text("nothing: 1\n")
    with pytest.raises(BadInput) as refusal:
        tick(instance, None)
    said = str(refusal.value)
    assert said.startswith(f"{bad} experiment files cannot be used: {folder}/bad-00.yaml:1: unknown section 'nothing'")
    assert said.count("unknown section") == NAMED
    assert said.endswith(more) and ("more" in said) is bool(more)


def test_an_automatic_experiment_asks_for_one_run_and_the_same_content_for_no_second(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    path = folder / "auto.yaml"
    path.write_text("materialize: auto\nsae:\n  k: 4\n")
    first = tick(instance, None)
    path.write_text("materialize: auto\nsae:\n  k: 0x4\n".replace("0x4", "4 # same"))
    second = tick(instance, first.cursor if isinstance(first, dg.SensorResult) else None)
    assert isinstance(first, dg.SensorResult)
    assert isinstance(second, dg.SensorResult)
    runs = [*(first.run_requests or []), *(second.run_requests or [])]
    assert [run.partition_key for run in runs] == ["auto", "auto"]
    assert len({run.run_key for run in runs}) == 1


def test_many_new_files_are_spread_over_ticks(folder: Path, instance: dg.DagsterInstance) -> None:
    for number in range(PER_TICK + 5):
        (folder / f"e{number:03d}.yaml").write_text(f"sae:\n  seed: {number}\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    second = tick(instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert len(noted(first.cursor)) == PER_TICK
    assert len(noted(second.cursor)) == PER_TICK + 5


def test_the_cursor_which_dagster_keeps_with_every_tick_takes_few_bytes_an_experiment(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors.experiments, "PER_TICK", 200)
    monkeypatch.setattr(sensors.experiments, "observations", lambda *_: ())
    (folder / "base.yaml").write_text("sae:\n  k: 4\n")
    for number in range(100):
        (folder / f"base-seed{number}.yaml").write_text(f"extends: base\nsae:\n  seed: {number}\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult) and first.cursor
    assert len(first.cursor) < 60 * 101


def test_a_cursor_in_plain_json_is_read_too(folder: Path, instance: dg.DagsterInstance) -> None:
    (folder / "one.yaml").write_text("sae:\n  k: 4\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    assert isinstance(tick(instance, json.dumps(noted(first.cursor))), dg.SkipReason)


def test_another_experiments_folder_is_read_anew_while_the_old_one_is_still_there(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "one.yaml").write_text("sae:\n  k: 4\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    other = folder.with_name("other")
    other.mkdir()
    (other / "one.yaml").write_text("sae:\n  k: 8\n")
    monkeypatch.setenv("LORASCOPE_EXPERIMENTS", str(other))
    assert observed(tick(instance, first.cursor))["sae"] == Experiments(other).load("one").versions["sae"]


def test_a_partition_that_was_taken_comes_back_with_its_file_unchanged(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    (folder / "one.yaml").write_text("sae:\n  k: 4\n")
    first = tick(instance, None)
    assert isinstance(first, dg.SensorResult)
    instance.delete_dynamic_partition("experiment", "one")
    assert isinstance(tick(instance, first.cursor), dg.SensorResult)
    assert instance.get_dynamic_partitions("experiment") == ["one"]
