"""The page of a comparison and the files beside it."""

import re
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from assets.paper import asset
from assets.paper.comparison import Comparison
from dagster_project.cli import main
from dagster_project.compare import compare_experiments, computed_experiments, write_comparison
from resources.errors import BadInput
from resources.home import Home
from tests.dagster_project.edits import EDITS, METRICS, load, run_all


def test_every_file_that_the_page_links_is_there(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("{}\n")
    numbers = [{"number": "KL", "a": 1.0, "b": 2.0}]
    point = {"experiment": "a", "k": 2, "l0": 2.0, "fvu": 0.1, "dominated": False}
    found = Comparison(numbers, numbers, [point, {**point, "experiment": "b"}], numbers, numbers)
    page = write_comparison(Home(tmp_path / "home", tmp_path), ["a", "b"], found)
    links = set(re.findall(r'href="((?:tables|charts)/[^"]+)"', page.read_text()))
    assert {Path(link).stem for link in links} == {"parameters", "numbers", "frontier", "stability", "agreement"}
    assert [link for link in links if not (page.parent / link).exists()] == []


def metadata_of_comparison(home: Home) -> Mapping[str, object]:
    made = asset.experiment_comparison(home=home)
    assert isinstance(made, dg.MaterializeResult)
    return made.metadata or {}


def test_a_comparison_that_the_disk_refuses_fails_in_one_sentence(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    run_all(load(tmp_path, dict.fromkeys(EDITS, 0), "a"), home)
    (tmp_path / "b.yaml").write_text("extends: a\n")
    home.comparison.mkdir()
    (home.comparison / "index.html").symlink_to("/dev/full")
    with pytest.raises(dg.Failure, match="is full: free some space"):
        metadata_of_comparison(home)


def test_what_a_comparison_has_no_room_for_is_named_on_its_page_and_in_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home", tmp_path)
    run_all(load(tmp_path, dict.fromkeys(EDITS, 0), "a"), home)
    for name in "bcd":
        (tmp_path / f"{name}.yaml").write_text("extends: a\n")
    monkeypatch.setattr(asset, "MOST", 2)
    metadata = metadata_of_comparison(home)
    assert (metadata["experiments"], metadata["left_out"]) == ("a, b", "2: c, d")
    assert (
        "2 more are computed and left out here, in the order of their names: c, d."
        in (home.comparison / "index.html").read_text()
    )
    monkeypatch.setattr(asset, "MOST", 4)
    assert "left_out" not in metadata_of_comparison(home)
    assert "left out" not in (home.comparison / "index.html").read_text()


def test_the_tables_of_a_terminal_stand_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "ablation_kl", {"kl_all": 0.25})
    home = Home(tmp_path / "home", tmp_path)
    run_all(load(tmp_path, dict.fromkeys(EDITS, 0), "a"), home)
    run_all(load(tmp_path, {**dict.fromkeys(EDITS, 0), "sae": 1}, "b"), home)
    places = {"LORASCOPE_HOME": str(home.root), "LORASCOPE_EXPERIMENTS": str(tmp_path)}
    told = CliRunner(env=places).invoke(main, ["compare", "a", "b"]).output
    assert told.startswith("Parameters that differ\n\n")
    assert "\n\nNumbers\n\n" in told


def test_an_experiment_is_computed_when_something_is_that_it_does_not_share(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    run_all(load(tmp_path, dict.fromkeys(EDITS, 0), "parent"), home)
    child = "extends: parent\n"
    (tmp_path / "same.yaml").write_text(child + "description: nothing else\n")
    (tmp_path / "never-run.yaml").write_text(child + "sae: {k: 7}\n")
    (tmp_path / "broken.yaml").write_text(child + "sae: {k: none}\n")
    assert computed_experiments(home) == ["parent", "same"]
    with pytest.raises(BadInput, match="nothing of 'never-run' is computed yet"):
        compare_experiments(home, ["parent", "never-run"])


def test_a_child_counts_though_its_parent_alone_is_invalid(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    run_all(load(tmp_path, dict.fromkeys(EDITS, 0), "whole"), home)
    text = (tmp_path / "whole.yaml").read_text()
    (tmp_path / "parent.yaml").write_text("extends: mini\nsae: {k: none}\n")
    (tmp_path / "child.yaml").write_text(text.replace("extends: mini", "extends: parent"))
    assert computed_experiments(home) == ["child", "whole"]
    assert [row["parameter"] for row in compare_experiments(home, ["child", "whole"]).parameters] == []
