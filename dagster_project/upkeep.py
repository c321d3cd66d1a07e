"""gc and verify: what may be removed from the store, and what in it is not what it was."""

import errno
import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dagster_project.claim import claimed_keys, folders_file, other_folders, unchanging
from dagster_project.experiment import Experiments
from dagster_project.plan import finished_run_folder, keys, run_folder
from resources.errors import BadInput
from resources.home import Home
from resources.launcher.deployment import Deployment, load_deployment
from resources.launcher.protocol import Busy
from resources.launcher.rundir import RunDir
from resources.lock import try_hold
from resources.store import Damage, Store

ABANDONED_S = 86_400.0
"""A temporary folder untouched for a day belongs to nobody who comes back."""

_IN_USE = (errno.EBUSY, errno.ENOTEMPTY)
"""What NFS answers where somebody has a file open: it keeps that under another name in the folder."""


@dataclass(frozen=True)
class Removed:
    """One folder that gc took, or would take."""

    path: Path
    size: int
    """Bytes."""
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.path}  {self.size / 1e6:.1f} MB  {self.reason}"


def collect_garbage(
    home: Home, experiments: Experiments, *, dry_run: bool, say: Callable[[str], None]
) -> list[Removed]:
    """Remove unreachable artifacts, damaged ones set aside, and abandoned temporary folders.

    Keeps whatever a run that is alive may read or write, and lets no run begin meanwhile.

    Raises:
        BadInput: when an experiment file is invalid, or none is there, or runs of another experiments folder use the
            home too, since then nobody knows what is reached.
    """
    store = Store(home.store)
    with unchanging(home, "gc", say):
        kept = _reachable(experiments, store) | claimed_keys(home)
        _check_alone(home)
        found = [*_unreachable(store, kept), *_abandoned(home)]
        if dry_run:
            return found
        return [item for item in found if _remove(home, item.path, say)]


def _reachable(experiments: Experiments, store: Store) -> set[tuple[str, str]]:
    names = experiments.names_that_keep(list(store.artifacts()))
    try:
        return {pair for name in names for pair in keys(experiments.load(name)).items()}
    except BadInput as error:
        raise BadInput(
            f"gc cannot know what an invalid experiment needs; repair or remove it first: {error}"
        ) from error


def _check_alone(home: Home) -> None:
    """What another folder's experiments reach cannot be worked out here: another checkout may be of another version."""
    others = other_folders(home)
    if others:
        raise BadInput(
            f"{home.root} also holds artifacts of {', '.join(others)}, which gc would remove: let all who share the "
            f"home set LORASCOPE_EXPERIMENTS to one folder, and delete the lines of others from {folders_file(home)}"
        )


def _unreachable(store: Store, reachable: set[tuple[str, str]]) -> Iterator[Removed]:
    for asset, key in store.artifacts():
        if (asset, key) not in reachable:
            folder = store.folder(asset, key)
            yield Removed(folder, _size(folder), "no experiment reaches it")


def _abandoned(home: Home) -> Iterator[Removed]:
    """Set-aside damage and logs of artifacts that are gone at once; half-made work after a day."""
    for folder in (home.store / ".damaged").glob("*"):
        yield Removed(folder, _size(folder), "damaged, set aside")
    kept = {f"{asset}-{key}" for asset, key in Store(home.store).artifacts()}
    for folder in finished_run_folder(home.runs, "").glob("*"):
        if folder.name not in kept:
            yield Removed(folder, _size(folder), "log of an artifact that is gone")
    deployment = load_deployment()
    for folder, run in _half_made(home):
        age = time.time() - _last_change(folder)
        if age > ABANDONED_S and not _has_job(run, deployment):
            yield Removed(folder, _size(folder), f"untouched for {age / 3600:.0f} hours")


def _half_made(home: Home) -> Iterator[tuple[Path, Path]]:
    """Every folder of work that is not finished, with the run folder of its job."""
    for folder in (home.store / ".partial").glob("*/*"):
        yield folder, run_folder(home.runs, folder.parent.name, folder.name)
    for run in home.runs.glob("[!.]*"):
        yield run, run


def _has_job(run: Path, deployment: Deployment) -> bool:
    """A queued job needs its folders however long it waits, also when the run that waited for it is gone."""
    if not run.exists():
        return False
    job = RunDir(run).job()
    launcher = deployment.for_gpus(job.gpus if job else 1).launcher()
    try:
        handle = RunDir(run).handle() or launcher.find(run)
        return handle is not None and launcher.alive(handle)
    except (Busy, BadInput):
        return True  # nobody answers, or the job went to a back end other than today's: it may be there


def _remove(home: Home, folder: Path, say: Callable[[str], None]) -> bool:
    """Delete a folder unless a run is computing its key; what somebody has open may stay."""
    relative = folder.relative_to(home.root).parts
    name = "-".join(relative[-2:]) if relative[0] == "store" else relative[-1]
    lock = try_hold(home.store / ".locks" / name)
    if lock is None:
        return False
    with lock:
        present = folder.exists()
        if folder.is_symlink():
            folder.unlink()  # what it leads to, somebody put on another disk by hand
        elif present:
            try:
                shutil.rmtree(folder)
            except OSError as error:
                if error.errno not in _IN_USE:
                    raise
                say(f"{folder} is still in use ({error.strerror}): the next gc removes what is left")
                return False
        (home.store / ".locks" / name).unlink()
    return present


def _size(folder: Path) -> int:
    """What removing it frees: of a link, nothing."""
    return 0 if folder.is_symlink() else sum(found.st_size for found in _states(folder) if stat.S_ISREG(found.st_mode))


def _last_change(folder: Path) -> float:
    """A folder that has just gone is nobody's leftover: never."""
    return max((found.st_mtime for found in _states(folder)), default=math.inf)


def _states(folder: Path) -> Iterator[os.stat_result]:
    """Of the folder and everything below it, as far as it is still there: a run may be at work in it."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            with suppress(FileNotFoundError):
                yield path.stat()


def verify_store(store: Store, say: Callable[[str], None]) -> list[Damage]:
    """Every damaged file of every artifact; damaged artifacts are set aside, so the next run computes them anew.

    Raises:
        BadInput: in the end, when files could not be looked at, which says nothing of them.
    """
    damage: list[Damage] = []
    unseen: list[OSError] = []
    artifacts = list(store.artifacts())
    for asset, key in artifacts:
        try:
            found = list(store.damage(asset, key))
        except OSError as error:
            unseen.append(error)
            say(f"{asset}/{key}: not checked, {error}")
            continue
        if found and _in_motion(store, asset, key):
            continue
        aside = _set_aside(store, asset, key) if found else ""
        for item in found:
            say(f"{item} ({aside})")
        damage += found
    say(f"{len(artifacts) - len(unseen)} artifacts checked, {len(damage)} damaged files")
    if unseen:
        raise BadInput(
            f"{len(unseen)} of {len(artifacts)} artifacts could not be read ({unseen[0]}): see to that first"
        )
    return damage


def _in_motion(store: Store, asset: str, key: str) -> bool:
    """Whether gc has removed it by now, or is about to, or a run makes it anew."""
    try:
        lock = try_hold(store.root / ".locks" / f"{asset}-{key}")
    except OSError:  # in a store that may only be read
        return False
    if lock is None:
        return True
    with lock:
        return not store.folder(asset, key).exists()


def _set_aside(store: Store, asset: str, key: str) -> str:
    """What became of a damaged artifact."""
    try:
        store.set_aside(asset, key)
    except OSError as error:
        return f"not set aside: {error}"
    return "set aside; run again to compute it anew"
