"""Where state lives: everything under `LORASCOPE_HOME`, experiments under `LORASCOPE_EXPERIMENTS`."""

import os
from dataclasses import dataclass
from pathlib import Path

from resources.errors import BadInput
from resources.sources import PROJECT


@dataclass(frozen=True)
class Home:
    """The state of one installation; folders are made when first written to."""

    root: Path
    experiments: Path

    @property
    def store(self) -> Path:
        """Finished artifacts, content-addressed."""
        return self.root / "store"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME: runs, events, partitions."""
        return self.root / "dagster"

    @property
    def runs(self) -> Path:
        """Run directories of worker jobs: logs, messages, results."""
        return self.root / "runs"

    @property
    def comparison(self) -> Path:
        """The page that lays experiments side by side; written anew each time."""
        return self.root / "comparison"

    @property
    def generations(self) -> Path:
        """Generated benchmark answers by a hash of what made them; shared by experiments, safe to delete."""
        return self.root / "generations"

    @property
    def fingerprints(self) -> Path:
        """Content hashes of large outside folders, by their files' state; safe to delete."""
        return self.root / "fingerprints"


def find_home() -> Home:
    """The home named by the environment, else `.lorascope/` and `experiments/` of the project.

    Raises:
        BadInput: when it is no folder, or the project is not here.
    """
    if not (PROJECT / "dagster.yaml").exists():
        raise BadInput(
            f"{PROJECT} holds no dagster.yaml: Lorascope runs from its clone, so install it there with "
            "`pip install -e .`"
        )
    root = Path(os.environ.get("LORASCOPE_HOME") or PROJECT / ".lorascope").absolute()
    experiments = Path(os.environ.get("LORASCOPE_EXPERIMENTS") or PROJECT / "experiments").absolute()
    for path in (root, experiments):
        if path.exists() and not path.is_dir():
            raise BadInput(f"{path} is a file: set LORASCOPE_HOME and LORASCOPE_EXPERIMENTS to folders")
    return Home(root, experiments)
