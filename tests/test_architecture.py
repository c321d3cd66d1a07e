"""The rules of the house, kept by a test: who may look where, how big things may grow, what loading costs."""

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest

from dagster_project.rooms import ROOMS, STAGES
from resources.artifact import Artifact

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("dagster_project", "assets", "resources", "sensors")
FILES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
SHARED_PARAMETERS = {"out", "scratch", "progress", "compute"}
HEAVY = ("torch", "transformers", "peft", "vllm", "lm_eval", "datasets", "pyarrow.compute", "altair", "scipy")


def name_of(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def imports_of(path: Path) -> Iterator[str]:
    """Every module a file names in an import, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", [p for p in FILES if "assets" in p.parts and p.parent.name in ROOMS], ids=name_of)
def test_a_room_looks_only_left_and_only_at_another_rooms_artifact_or_config(path: Path) -> None:
    """`assets/sections.py` holds the config of every room but the last, which alone stands right of it."""
    own = path.relative_to(PROJECT).parts[1]
    left = ROOMS[: ROOMS.index(own)]
    for module in imports_of(path):
        parts = module.split(".")
        if parts[0] != "assets" or len(parts) < 3 or parts[1] == own or (own == ROOMS[-1] and parts[1] == "sections"):
            continue
        assert parts[1] in left, f"{name_of(path)} looks right, at {module}"
        assert parts[2] in ("artifact", "config"), f"{name_of(path)} reaches into {module}"


@pytest.mark.parametrize("path", sorted((PROJECT / "resources").rglob("*.py")), ids=name_of)
def test_resources_know_no_room_and_no_building(path: Path) -> None:
    known = [module for module in imports_of(path) if module.split(".")[0] in ("assets", "dagster_project", "sensors")]
    assert known == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_dagster_is_imported_only_at_the_edges(path: Path) -> None:
    if path.name == "asset.py" or path.relative_to(PROJECT).parts[0] in ("dagster_project", "sensors"):
        return
    assert [module for module in imports_of(path) if module.split(".")[0] == "dagster"] == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_the_same_doors(room: str) -> None:
    folder = PROJECT / "assets" / room
    assert {"__init__.py", "asset.py", "config.py", "artifact.py"} <= {path.name for path in folder.iterdir()}
    body = ast.parse((folder / "__init__.py").read_text()).body
    assert len(body) == 1, f"assets/{room}/__init__.py is a docstring and nothing else"
    assert len((folder / "asset.py").read_text().splitlines()) <= 80


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_says_why_it_exists_and_stays_small(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    assert len(path.read_text().splitlines()) <= 350
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 80, f"{name_of(path)}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_called_after_nothing_in_particular(path: Path) -> None:
    words = set(path.stem.split("_"))
    assert not words & {"utils", "util", "helpers", "helper", "manager", "common", "misc", "stuff"}


def test_every_stages_call_takes_exactly_its_sections_and_inputs_by_name() -> None:
    code = (
        "import importlib, inspect, json\n"
        "from dagster_project.rooms import STAGES\n"
        "calls = {s.asset: s.call.split(':') for s in STAGES}\n"
        "found = {a: inspect.signature(getattr(importlib.import_module(m), n)) for a, (m, n) in calls.items()}\n"
        "print(json.dumps({a: {k: str(p.kind) for k, p in s.parameters.items()} for a, s in found.items()}))"
    )
    found = json.loads(run_python(code))
    for stage in STAGES:
        parameters = found[stage.asset]
        assert set(parameters) - SHARED_PARAMETERS == {*stage.sections, *stage.inputs}, stage.asset
        assert set(parameters.values()) == {str(inspect.Parameter.KEYWORD_ONLY)}, stage.asset


def test_what_a_stage_leaves_says_by_one_name_where_it_lies() -> None:
    assert [stage.asset for stage in STAGES if not issubclass(resolve_name(stage.artifact), Artifact)] == []


def test_an_artifact_is_shown_by_where_it_lies_and_not_by_all_it_holds() -> None:
    for stage in STAGES:
        artifact = object.__new__(resolve_name(stage.artifact))
        object.__setattr__(artifact, "path", Path("folder"))
        assert repr(artifact) == f"{type(artifact).__name__}(path={Path('folder')!r})"


def test_a_stages_inputs_stand_to_its_left() -> None:
    seen: set[str] = set()
    for stage in STAGES:
        assert set(stage.inputs) <= seen, f"{stage.asset} reads what is not made yet"
        seen.add(stage.asset)


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT).stdout


def loaded_by(module: str) -> set[str]:
    return set(json.loads(run_python(f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))")))


def test_loading_the_definitions_imports_no_torch() -> None:
    assert not loaded_by("dagster_project.definitions") & set(HEAVY)


def test_planning_imports_neither_dagster_nor_torch() -> None:
    assert not loaded_by("dagster_project.cli") & {"dagster", *HEAVY}


def test_a_worker_imports_no_dagster() -> None:
    assert "dagster" not in loaded_by("resources.worker")
