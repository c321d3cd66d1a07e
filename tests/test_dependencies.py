"""What is imported is declared, and what is locked is whole: what came along by chance may leave by chance."""

import sys
import tomllib
from importlib.metadata import distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from resources.sources import PROJECT
from tests.test_architecture import FILES, PACKAGES, imports_of

PINNED = {"dagster-pipes", "pydantic-core"}
"""dagster and pydantic name their one version."""


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def locked() -> dict[str, str]:
    lines = (PROJECT / "requirements.lock").read_text().split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_every_package_that_is_imported_is_declared() -> None:
    modules = {module.split(".")[0] for path in FILES for module in imports_of(path)}
    provided = packages_distributions()
    names = {
        canonicalize_name(name)
        for module in modules - set(PACKAGES) - sys.stdlib_module_names
        for name in provided.get(module, [module])
    }
    assert names - PINNED - declared("gpu") == set()


def test_every_package_that_a_locked_one_needs_is_locked() -> None:
    needed = {
        canonicalize_name(need.name)
        for name in locked()
        for need in map(Requirement, distribution(name).requires or [])
        if need.marker is None or need.marker.evaluate({"extra": ""})
    }
    # torch pins these itself, and its CPU build needs none
    of_cuda = {name for name in needed if name.startswith(("cuda-", "nvidia-"))}
    assert needed - locked().keys() - of_cuda == set()


def test_what_is_locked_lies_in_the_range_that_is_declared() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(line) for line in [*project["dependencies"], *extras["dev"], *extras["docs"]]]
    versions = locked()
    outside = [str(need) for need in asked if versions[canonicalize_name(need.name)] not in need.specifier]
    assert outside == []


def test_what_is_locked_can_be_installed_by_the_first_python_of_each_version() -> None:
    """Debian 12's is 3.11.2."""
    refused = {
        (name, python)
        for name in locked()
        for python in ("3.11.0", "3.12.0", "3.13.0")
        if python not in SpecifierSet(str(distribution(name).metadata.json.get("requires_python", "")))
    }
    assert refused == set()
