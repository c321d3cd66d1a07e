"""An installation of its own, driven through the command line, and one in which a tiny experiment has been run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resources.sources import PROJECT

TINY = Path(__file__).parent / "end_to_end" / "tiny.yaml"


@dataclass(frozen=True)
class Installation:
    """A LORASCOPE_HOME and an experiments folder of their own."""

    home: Path
    experiments: Path

    @property
    def environment(self) -> dict[str, str]:
        """For processes of this installation."""
        return {**os.environ, "LORASCOPE_HOME": str(self.home), "LORASCOPE_EXPERIMENTS": str(self.experiments)}

    def run(self, *arguments: str, timeout: float = 1200) -> "subprocess.CompletedProcess[str]":
        """`lorascope ARGUMENTS`."""
        command = self.command(*arguments)
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """`lorascope ARGUMENTS`, which goes on; what it says is dropped."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self.command(*arguments), env=self.environment, stdout=quiet, stderr=quiet)

    @staticmethod
    def command(*arguments: str) -> list[str]:
        """`lorascope ARGUMENTS`, as a list."""
        return [str(Path(sys.executable).with_name("lorascope")), *arguments]

    def json(self, *arguments: str) -> object:
        """`lorascope ARGUMENTS --json`, parsed."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    def plan(self, experiment: str) -> dict[str, dict]:
        """Asset -> line of the plan."""
        lines = self.json("plan", experiment)
        assert isinstance(lines, list)
        return {line["asset"]: line for line in lines}


def build_installation(folder: Path, experiments: Sequence[Path]) -> Installation:
    installation = Installation(folder / "home", folder / "experiments")
    installation.experiments.mkdir(parents=True)
    for path in experiments:
        shutil.copy(path, installation.experiments)
    return installation


def build_tiny(folder: Path) -> Installation:
    """An installation in which `lorascope run tiny` has succeeded; its words are in `folder/run.log`."""
    installation = build_installation(folder, [PROJECT / "experiments" / "mini.yaml", TINY])
    done = installation.run("run", "tiny")
    (folder / "run.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return installation
