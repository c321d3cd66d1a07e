"""Where state lives, and what is said where no project is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resources.sources import PROJECT


@pytest.mark.parametrize("command", [("plan", "mini"), ("ui",)], ids=" ".join)
def test_an_install_without_e_says_that_the_project_runs_from_its_clone(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """A wheel, and so `pip install .`, holds the packages and no experiments."""
    for package in ("assets", "dagster_project", "resources", "sensors"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LORASCOPE_")}
    done = subprocess.run(
        [sys.executable, "-c", "from dagster_project.cli import main; main()", *command],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"lorascope: {tmp_path} holds no dagster.yaml: Lorascope runs from its clone, so install it there with "
        "`pip install -e .`\n",
    )
    assert not (tmp_path / ".lorascope").exists()
