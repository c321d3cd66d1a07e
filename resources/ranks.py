"""Which of a stage's parallel processes this is, as torchrun tells it; one process when nobody does."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_POLL_S = 0.05


@dataclass(frozen=True)
class Rank:
    """This process among `world` that share `out` and `scratch`."""

    index: int = 0
    world: int = 1
    local: int = 0
    """Index on this node: its GPU."""
    attempt: str = "alone"
    """The same in all processes of one launch, another in the next: files that carry it are of this attempt."""

    @classmethod
    def here(cls) -> "Rank":
        """From torchrun's environment."""
        index, world, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
        launch = [os.environ[name] for name in _LAUNCH if name in os.environ]
        return cls(index, world, local, "-".join(launch) or "alone")

    def device(self, kind: Literal["cpu", "cuda"]) -> str:
        """The torch device of this process."""
        return f"cuda:{self.local}" if kind == "cuda" else "cpu"

    def share(self, count: int) -> range:
        """The numbers below `count` that are this process's: every `world`-th."""
        return range(self.index, count, self.world)


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
_LAUNCH = ("LORASCOPE_ATTEMPT", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


def wait_for(paths: Iterable[Path]) -> None:
    """Return when other processes have put all the files there.

    No time limit: torchrun ends this process when another one fails.
    """
    for path in paths:
        while not path.exists():
            time.sleep(_POLL_S)
