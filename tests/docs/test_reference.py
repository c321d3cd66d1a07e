"""Nothing of the project is missing from its documentation, and the documentation builds without a warning."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dagster_project.cli import main
from dagster_project.experiment import ALL_SECTIONS, OWN_KEYS
from dagster_project.rooms import ROOMS, STAGES
from docs.reference import columns, commands, knobs, pages, rooms, schemas_of, targets, verbs
from resources.home import Home
from resources.launcher.deployment import Deployment
from resources.llm.cache import FILE_NAME as ANSWERS
from resources.llm.endpoint import KEY_VARIABLES, URL_VARIABLES
from resources.manifest import read_manifest
from resources.sources import PROJECT
from tests.installation import Installation

PAGES = {path.relative_to(PROJECT): path.read_text() for path in sorted((PROJECT / "docs").rglob("*.md"))}
CELL_END = re.compile(r"(?<!\\)\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")
"""A bar that is neither escaped nor in code."""
PACKAGES = ("assets", "dagster_project", "resources", "sensors")


def section_of(page: str, heading: str) -> str:
    """What stands under a heading, up to the next of its level."""
    level = heading.split(" ")[0]
    return page.split(f"\n{heading}\n", 1)[1].split(f"\n{level} ", 1)[0]


@pytest.mark.parametrize("name", ALL_SECTIONS)
def test_every_knob_stands_with_its_default_and_what_it_is(name: str) -> None:
    rows = section_of(knobs(), f"## `{name}`").splitlines()
    for key, field in ALL_SECTIONS[name].model_fields.items():
        row = next(line for line in rows if line.startswith(f"| `{key}` |"))
        _, _, takes, default, text, _ = CELL_END.split(row)
        assert takes.strip() and default.strip(), row
        assert len(text.strip()) > 10, f"{name}.{key} has no docstring"
        assert field.description


def test_a_row_carries_bounds_choices_default_and_source() -> None:
    page = knobs()
    assert (
        "| `k` | integer, ≥ 1 and ≤ 4,096 | `16` | Latents that fire per token, on average over a batch (paper: 16). |"
        in page
    )
    assert '| `decoder` | `unit` or `free` | `"unit"` |' in page
    assert "| `layers` | list of integer or null | `null` |" in page
    assert "| `server_url` | text or null | `null` |" in page


def test_what_a_knob_says_of_no_value_is_what_a_file_takes() -> None:
    assert re.findall(r"[^;]*\b[Nn]one: [^.|]*", knobs()) == []


def test_every_field_of_compute_yaml_and_every_key_of_the_file_itself_stands() -> None:
    rows = section_of(knobs(), "## `compute.yaml`")
    assert all(f"| `{key}` |" in rows for key in Deployment.model_fields)
    assert all(f"| `{key}` |" in knobs() for key in OWN_KEYS)


def test_every_room_and_asset_stands_in_the_reference_the_architecture_and_the_readme() -> None:
    architecture, readme = PAGES[Path("docs/architecture.md")], (PROJECT / "README.md").read_text()
    for page in (rooms(), architecture, readme):
        assert all(f"`{room}`" in page for room in ROOMS)
        assert all(f"`{stage.asset}`" in page for stage in STAGES)


def test_what_can_be_read_of_an_opened_experiment_stands_with_what_it_gives() -> None:
    page = rooms()
    assert all(f"| `{stage.asset}.table()` | " in page for stage in STAGES)
    assert "| `ablation_kl.rollouts()` | One row per ablated part or latent and rollout. |" in page
    assert "| `max_activating_contexts.of(unit_id, sample)` | A unit's contexts of one sample, by rank; reads" in page
    assert "| `activation_shards.shards` | The states: `columns` names them," in page
    assert not re.findall(r"^\| `\w+\.\w+(?:\(.*\))?` \|\s*\|$|`\w+\.(?:open|_\w+)", page, re.MULTILINE)


@pytest.mark.parametrize("room", ROOMS)
def test_the_room_map_says_where_a_room_looks(room: str) -> None:
    row = next(line for line in PAGES[Path("docs/architecture.md")].splitlines() if line.startswith(f"| `{room}` |"))
    shown = row.split("|")[3].strip()
    room_of = {stage.asset: stage.room for stage in STAGES}
    inputs = {room_of[name] for stage in STAGES if stage.room == room for name in stage.inputs} - {room}
    assert shown == "all" or {name.strip() for name in shown.split(",") if name.strip()} == inputs


def test_every_column_stands_with_what_it_is() -> None:
    page = columns()
    for stage in STAGES:
        for file, schema in schemas_of(stage).items():
            rows = section_of(page, f"### `{file}` of `{stage.asset}`").splitlines()
            for name in schema.names:
                row = next(line for line in rows if line.startswith(f"| `{name}` |"))
                assert len(re.split(r"(?<!\\)\|", row)[3].strip()) > 2, f"{file} does not say what {name} is"
    assert "| `p_value` | double | exact McNemar, two-sided; null with several samples per question |" in page
    assert "| `state` | list of halffloat | one scalar per component or neuron, in the order" in page


def test_no_description_holds_what_dagsters_markdown_takes_for_html() -> None:
    schemas = [schema for stage in STAGES for schema in schemas_of(stage).values()]
    described = [(field.name, field.metadata[b"description"].decode()) for schema in schemas for field in schema]
    assert len(described) > 100
    assert [(name, text) for name, text in described if re.search(r"<\w", text)] == []


def test_every_schema_of_a_room_is_that_of_a_file() -> None:
    for room in ROOMS:
        known = [v for v in vars(import_module(f"assets.{room}.artifact")).values() if isinstance(v, pa.Schema)]
        files = [schema for stage in STAGES if stage.room == room for schema in schemas_of(stage).values()]
        assert all(any(schema is file for file in files) for schema in known), room


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_files_of_an_experiment_have_these_columns_and_dagster_their_descriptions(tiny: Installation) -> None:
    for stage in STAGES:
        told = {name: schema.names for name, schema in schemas_of(stage).items() if name.endswith(".parquet")}
        seen: dict[str, list[str]] = {}
        for folder in (tiny.home / "store" / stage.asset).iterdir():
            found = {re.sub(r"-\d+", "-*", path.name): pq.read_schema(path).names for path in folder.glob("*.parquet")}
            assert found == {name: told.get(name) for name in found}, folder
            seen |= found
            if stage.room != "paper":
                assert [one.name for one in read_manifest(folder).columns if not one.description] == []
        assert seen == told, stage.asset


def test_every_verb_and_make_target_stands() -> None:
    page = commands()
    assert all(f"### `lorascope {name}`" in page for name, _ in verbs(main))
    declared = re.search(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None
    assert set(targets()) == set(declared[1].split())
    assert all(f"| `make {name}` |" in page for name in declared[1].split())


def test_every_environment_variable_of_the_code_is_explained() -> None:
    files = [path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")]
    used = {name for path in files for name in re.findall(r"LORASCOPE_[A-Z_]+", path.read_text())}
    assert len(used) > 4
    page = PAGES[Path("docs/reference/environment.md")]
    assert used <= set(re.findall(r"LORASCOPE_[A-Z_]+", page))
    keys = {*KEY_VARIABLES.values(), *URL_VARIABLES.values()} - {""}
    assert keys <= set(re.findall(r"`([A-Z_]+)`", page.split("Set by Lorascope")[0]))


def test_everything_in_a_home_is_explained(tmp_path: Path) -> None:
    page = PAGES[Path("docs/reference/environment.md")].split("| under `LORASCOPE_HOME` | holds |")[1]
    home = Home(tmp_path, tmp_path)
    folders = [home.store, home.runs, home.dagster, home.generations, home.comparison]
    assert all(f"| `{folder.name}/" in page for folder in folders)
    assert f"| `{ANSWERS}` |" in page


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/how-to/gpus.md"])
def test_a_page_that_begins_with_make_says_how_its_lorascope_comes_into_the_shell(page: str) -> None:
    text = (PROJECT / page).read_text()
    typed = re.search(r"^(lorascope|pip) ", text, re.MULTILINE)
    assert typed is not None and "source .venv/bin/activate" in text[: typed.start()]


def test_knobs_that_pages_name_exist() -> None:
    sections = "|".join(ALL_SECTIONS)
    for path, text in PAGES.items():
        for section, key in re.findall(rf"`({sections})\.([a-z_0-9]+)`", text):
            known = {*ALL_SECTIONS[section].model_fields, "yaml"}
            assert key in known, f"{path} names {section}.{key}"


def test_pictures_are_small_enough_for_a_repository() -> None:
    pictures = sorted((PROJECT / "docs" / "images").glob("*.png"))
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 200_000] == []


def test_the_pages_build_without_a_warning_and_load_nothing_from_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    built = sorted((tmp_path / "site").rglob("*.html"))
    assert {path.relative_to(tmp_path / "site").with_suffix(".md").as_posix() for path in built} >= set(pages())
    for path in built:
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"?([^\s\">]+)", path.read_text())
        loaded += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect)\"?[^>]*href=\"?([^\s\">]+)", path.read_text())
        assert loaded
        assert [address for address in loaded if "//" in address] == [], path
    told = (tmp_path / "site" / "reference" / "rooms.html").read_text()
    assert "<code>&lt;|im_end|&gt;</code>" in told  # a bar in a table's code
