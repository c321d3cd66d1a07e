"""What a run is using: its experiment as it stood when the run began, and every key that the run may read or write.

A claim is a locked file, so that gc leaves those keys alone, and one whose run died counts no more.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dagster_project.experiment import Experiment, Experiments
from dagster_project.plan import keys
from resources.errors import BadInput
from resources.home import Home
from resources.lock import held, try_hold
from resources.stage import Stage

Say = Callable[[str], None]


@dataclass(frozen=True)
class Claim:
    """An experiment for the length of one run: what its files say later changes nothing in it."""

    experiment: Experiment
    keys: Mapping[str, str]
    """Of every asset."""
    files: tuple[tuple[int, int], ...]
    """Of the experiment's file and its ancestors: when they changed last, and their sizes."""

    def check_sources(self, stage: Stage) -> None:
        """Make sure that the folders which a job reads hold what its key says.

        Raises:
            BadInput: when one has changed since the run began.
        """
        for name in stage.sections:
            sources = self.experiment.sections[name].sources()
            if sources and self.experiment.version(name) != self.experiment.versions[name]:
                raise BadInput(
                    f"{', '.join(sources)} (section '{name}') changed while this run of "
                    f"'{self.experiment.name}' was going on: what is finished stays, and "
                    f"`lorascope run {self.experiment.name}` goes on with what is there now"
                )

    def is_edited(self) -> bool:
        """The experiment's files are no longer those that this run was planned with."""
        return states(self.experiment) != self.files


@dataclass
class Claims:
    """The experiments of one run, each read once, when its first asset asks for it."""

    home: Home
    run: str
    """Its id."""
    _found: dict[str, Claim] = field(default_factory=dict)
    _checked: set[str] = field(default_factory=set)
    _stack: ExitStack = field(default_factory=ExitStack)

    def of(self, name: str, say: Say) -> Claim:
        """The run's view of an experiment; keeps its keys from gc until the run ends.

        Raises:
            BadInput: when the experiment's file is missing or invalid.
        """
        if name not in self._found:
            self._found[name] = self._stack.enter_context(claimed(self.home, name, self.run, say))
        return self._found[name]

    def check_once(self, claim: Claim, check: Callable[[], None]) -> None:
        """Let `check` refuse the experiment; once it has not, nothing that changes later stops the run."""
        if claim.experiment.name not in self._checked:
            check()
            self._checked.add(claim.experiment.name)

    def close(self) -> None:
        """The run has ended."""
        self._stack.close()


@contextmanager
def claimed(home: Home, name: str, run: str, say: Say) -> Iterator[Claim]:
    """Read an experiment and claim its keys while the block runs; waits for a gc that is under way."""
    with unchanging(home, f"run {run} of {name}", say):
        experiment = Experiments(home.experiments).load(name)
        claim = Claim(experiment, keys(experiment), states(experiment))
        claimed_keys(home)  # removes the claims of runs that were killed
        _note_folder(home)
        file = try_hold(home.store / ".claims" / f"{run}-{name}")
        if file is None:
            raise BadInput(f"run {run} already computes '{name}' in another process")
        file.write(json.dumps(claim.keys))
        file.flush()
    with file:
        try:
            yield claim
        finally:
            (home.store / ".claims" / f"{run}-{name}").unlink(missing_ok=True)


def folders_file(home: Home) -> Path:
    """Every experiments folder whose runs put artifacts into the store, one a line."""
    return home.store / ".folders"


def other_folders(home: Home) -> list[str]:
    """Experiments folders other than the home's own that have used its store."""
    return [folder for folder in _noted(home) if folder != str(home.experiments.resolve())]


def _note_folder(home: Home) -> None:
    here = str(home.experiments.resolve())
    if here not in _noted(home):
        with folders_file(home).open("a", errors="surrogateescape") as file:
            file.write(f"{here}\n")


def _noted(home: Home) -> list[str]:
    path = folders_file(home)
    return path.read_text(errors="surrogateescape").splitlines() if path.exists() else []


def states(experiment: Experiment) -> tuple[tuple[int, int], ...]:
    """Time of change (ns) and size of each file; nothing for one that is gone."""
    found = [path.stat() for path in experiment.files if path.exists()]
    return tuple((stat.st_ctime_ns, stat.st_size) for stat in found)


def unchanging(home: Home, holder: str, say: Say) -> AbstractContextManager[None]:
    """While the block runs, no run claims keys and no gc takes any."""
    lock = home.store / ".locks" / "gc"
    return held(lock, holder, lambda other: say(f"the store is held by {other}; waiting"), poll_s=0.05)


def claimed_keys(home: Home) -> set[tuple[str, str]]:
    """(asset, key) of every run that is alive; what dead ones left behind is removed. To be called when unchanging."""
    found: set[tuple[str, str]] = set()
    for path in (home.store / ".claims").glob("*"):
        file = try_hold(path)
        if file is None:
            with suppress(FileNotFoundError):  # its run has just ended
                found |= set(json.loads(path.read_text()).items())
            continue
        with file:
            path.unlink()
    return found
