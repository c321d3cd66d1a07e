"""The content-addressed store: an artifact is either whole, or it does not exist.

Work goes on in `.partial/<asset>/<key>/`; a finished artifact is fsynced, gets its manifest last and is renamed
to `<asset>/<key>/`, after which no byte of it changes.
"""

import errno
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from secrets import token_hex

from resources.errors import BadInput
from resources.keys import FileState, file_digest, file_state
from resources.manifest import FILE_NAME, FileEntry, Manifest, read_manifest, write_manifest
from resources.whole import sync, sync_all

SMALL = 32 * 2**20
"""Files up to 32 MiB are hashed again on every hit (0.02 s); larger ones, as the 53 MiB of the paper's activation
shards, when they become inputs of a job."""
TOLD_FROM = 2**30
"""Bytes of inputs from which on a run says that it hashes them: a gigabyte is half a second of one core."""

_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO}
"""What a file that is gone or broken gives; other errors (no right, too many open files) are not the file's fault."""


_HIDDEN = re.compile(r"(^|/)\.")
"""Relative names of what file managers and network disks leave behind (.DS_Store, .nfs0001) and no reader looks at."""

Hash = Callable[[Path], str | None]
"""A file's SHA-256; None: it is not looked at."""


@dataclass(frozen=True)
class Damage:
    """One file of the store that is not what its manifest says."""

    asset: str
    key: str
    file: str
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.asset}/{self.key}/{self.file}: {self.reason}"


@dataclass(frozen=True)
class Workspace:
    """Where one key is being computed."""

    out: Path
    scratch: Path


class Store:
    """Artifacts by asset and key under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, asset: str, key: str) -> Path:
        """Where the artifact lies, whether or not it exists."""
        return self.root / asset / key

    def find(self, asset: str, key: str) -> Manifest | None:
        """The manifest of a whole artifact; None when it is absent or damaged (then it is set aside).

        Raises:
            OSError: when it cannot be looked at now, which is no damage.
        """
        # Looked at first: what another run finishes meanwhile is not to be taken for damaged.
        if not self.folder(asset, key).exists():
            return None
        manifest = self.whole(asset, key)
        if manifest is None:
            self.set_aside(asset, key)
        return manifest

    def whole(self, asset: str, key: str) -> Manifest | None:
        """The manifest of a whole artifact; None when it is absent or damaged: for plans, which move nothing."""
        manifest = self.peek(asset, key)
        if manifest is None or any(self._differences(asset, key, manifest, map, _hash_if_small)):
            return None
        return manifest

    def peek(self, asset: str, key: str) -> Manifest | None:
        """The manifest as it stands, without looking at the files: for listings."""
        found = self._read(asset, key)
        return found if isinstance(found, Manifest) else None

    def damage(self, asset: str, key: str, hash_of: Hash = file_digest) -> Iterator[Damage]:
        """Every way in which the artifact differs from its manifest."""
        manifest = self._read(asset, key)
        if isinstance(manifest, str):
            yield Damage(asset, key, FILE_NAME, manifest)
            return
        with ThreadPoolExecutor(thread_name_prefix="hash") as pool:
            yield from self._differences(asset, key, manifest, pool.map, hash_of)

    def _read(self, asset: str, key: str) -> Manifest | str:
        """The manifest, or why there is none."""
        try:
            return read_manifest(self.folder(asset, key))
        except OSError as error:
            return _damage_told(error)
        except ValueError:
            return "unreadable"

    def _differences(
        self, asset: str, key: str, manifest: Manifest, each: Callable[..., Iterator[str]], hash_of: Hash
    ) -> Iterator[Damage]:
        """`each`: `map`, or that of a pool: a hit's small files are hashed before threads have begun."""
        if (manifest.asset, manifest.key) != (asset, key):
            yield Damage(asset, key, FILE_NAME, f"is the manifest of {manifest.asset}/{manifest.key}")
        folder = self.folder(asset, key)
        paths = [folder / name for name in manifest.files]
        reasons = each(partial(_file_damage, hash_of), paths, manifest.files.values())
        yield from (Damage(asset, key, name, why) for name, why in zip(manifest.files, reasons, strict=True) if why)
        for name in _names(folder):
            if name not in manifest.files and name != FILE_NAME and not _HIDDEN.search(name):
                yield Damage(asset, key, name, "is not in the manifest")

    def check_inputs(self, inputs: Mapping[str, str], say: Callable[[str], None]) -> None:
        """Hash every file of the artifacts a job is about to read; a large one that this process has hashed before is
        not read again while it stays as it was.

        Raises:
            BadInput: when one is damaged; it is set aside, so that running again computes it anew.
        """
        found = [manifest for item in inputs.items() if (manifest := self.peek(*item))]
        size = sum(entry.size for manifest in found for entry in manifest.files.values())
        if size >= TOLD_FROM:
            say(f"checks the hashes of its inputs, {size / 1e9:.0f} GB")
        for asset, key in inputs.items():
            damage = next(self.damage(asset, key, _hash_once), None)
            if damage is not None:
                self.set_aside(asset, key)
                raise BadInput(f"{damage}; it was set aside, run again to compute it anew")

    def set_aside(self, asset: str, key: str) -> None:
        """Move a damaged artifact to `.damaged/`, where gc finds it: nothing is lost, nothing wrong is read."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        target = self.root / ".damaged" / f"{asset}-{key}-{stamp}-{token_hex(4)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another run may have found the same damage and been quicker.
        with suppress(FileNotFoundError):
            self.folder(asset, key).rename(target)

    def partial(self, asset: str, key: str) -> Path:
        """Where work on a key goes on, whether or not any does."""
        return self.root / ".partial" / asset / key

    def places(self, asset: str, key: str) -> Workspace:
        """The private folders for computing a key, whether or not they exist."""
        partial = self.partial(asset, key)
        return Workspace(partial / "out", partial / "scratch")

    def workspace(self, asset: str, key: str) -> Workspace:
        """The same, made; `scratch` keeps what an earlier attempt left.

        Raises:
            BadInput: when the finished artifact could not be renamed to where it belongs.
        """
        workspace = self.places(asset, key)
        workspace.out.mkdir(parents=True, exist_ok=True)
        workspace.scratch.mkdir(parents=True, exist_ok=True)
        shelf = self.folder(asset, key).parent
        if shelf.exists() and shelf.stat().st_dev != workspace.out.stat().st_dev:
            raise BadInput(f"{shelf} lies on another disk than {self.root}: link the whole store there instead")
        return workspace

    def finish(self, manifest: Manifest) -> Manifest:
        """Make what lies in the workspace's `out` the artifact of `manifest` (its `files` are filled in here)."""
        partial = self.partial(manifest.asset, manifest.key)
        out = partial / "out"
        # A kill between this and the rename leaves a manifest, which must not become a file of the next one.
        (out / FILE_NAME).unlink(missing_ok=True)
        manifest = manifest.model_copy(update={"files": _entries(out)})
        write_manifest(out, manifest)
        sync_all(out)
        _close(out)
        target = self.folder(manifest.asset, manifest.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        out.rename(target)
        sync(target.parent)
        shutil.rmtree(partial)
        return manifest

    def artifacts(self) -> Iterator[tuple[str, str]]:
        """(asset, key) of everything that has a folder, damaged or not."""
        for asset in sorted(self.root.iterdir()) if self.root.exists() else ():
            if asset.is_dir() and not asset.name.startswith("."):
                yield from ((asset.name, key.name) for key in sorted(asset.iterdir()) if key.is_dir())


def _hash_if_small(path: Path) -> str | None:
    return file_digest(path) if path.stat().st_size <= SMALL else None


def _hash_once(path: Path) -> str:
    return file_digest(path) if path.stat().st_size <= SMALL else _hash_as_it_stands(path, file_state(path))


@lru_cache(maxsize=4096)
def _hash_as_it_stands(path: Path, _state: FileState) -> str:
    """86 GB are hashed once in a run, and not by each of four assets."""
    return file_digest(path)


def _file_damage(hash_of: Hash, path: Path, entry: FileEntry) -> str:
    """Why the file is not the manifest's; empty when it is."""
    try:
        size = path.stat().st_size
        if size != entry.size:
            return f"{size} bytes instead of {entry.size}"
        if hash_of(path) not in (None, entry.sha256):
            return "content differs from its SHA-256"
    except OSError as error:
        return _damage_told(error)
    return ""


def _damage_told(error: OSError) -> str:
    """What is wrong with a file that cannot be read.

    Raises:
        OSError: this one, when it says nothing of the file: an artifact that is whole stays where it is.
    """
    if error.errno not in _DAMAGE:
        raise error
    return "missing" if error.errno == errno.ENOENT else f"unreadable ({error.strerror})"


def _entries(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file below a folder, by relative name."""
    paths = {name: folder / name for name in _names(folder)}
    with ThreadPoolExecutor(thread_name_prefix="hash") as pool:
        hashes = pool.map(file_digest, paths.values())
        return {
            name: FileEntry(size=path.stat().st_size, sha256=found)
            for (name, path), found in zip(paths.items(), hashes, strict=True)
        }


def _names(folder: Path) -> list[str]:
    """Every file below a folder, by relative name."""
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def _close(folder: Path) -> None:
    """Make every file below a folder read-only."""
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(PermissionError):  # what another user of a shared home began has another owner
                path.chmod(0o444)
