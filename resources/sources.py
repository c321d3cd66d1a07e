"""Outside data by name: a folder of this machine, or a repository of the hub."""

import os
from functools import lru_cache
from pathlib import Path

from resources.errors import BadInput, quoted
from resources.keys import file_digest, folder_digest

PROJECT = Path(__file__).resolve().parents[1]
"""Relative names are looked up here, so that a clone finds what it ships from any working directory."""
MOST_FILES = 10_000
"""A folder with more is not a model or a dataset but a mistake, such as `/`, which would be hashed for hours."""

State = tuple[tuple[str, int, int, int], ...]


class FileName(str):
    """Names one file, where every other name is that of a folder or a repository."""

    __slots__ = ()


def local_folder(name: str) -> Path | None:
    """The folder (of a `FileName`: the file) that `name` means, or None when it is a hub id.

    Raises:
        BadInput: for a name that this machine cannot look up.
    """
    try:
        folder = Path(name).expanduser()
        folder = folder if folder.is_absolute() else PROJECT / folder
        found = folder.is_file() if isinstance(name, FileName) else folder.is_dir()
        return folder if found else None
    except RuntimeError as error:
        raise BadInput(f"{quoted(name)} names the home of nobody on this machine") from error
    except OSError as error:
        raise BadInput(f"{quoted(name)} cannot be looked up: {error.strerror}") from error


def check_source(name: str) -> None:
    """Refuse what cannot be the folder of a model or a dataset, before anybody hashes it.

    Raises:
        BadInput: for an impossible name, or a folder with too many files or none.
    """
    folder = local_folder(name)
    if folder is None or folder.is_file():
        return
    found = 0
    for _, _, files in os.walk(folder):
        found += len(files)
        if found > MOST_FILES:
            raise BadInput(f"{quoted(name)} holds more than {MOST_FILES} files; name the folder of the data itself")
    if not found:
        raise BadInput(f"{quoted(name)} is empty: is its disk mounted?")


def fingerprints(names: tuple[str, ...]) -> dict[str, str]:
    """Content hash of each name that is a local folder; hub ids are pinned by their revision instead.

    Raises:
        BadInput: when a file cannot be read.
    """
    folders = {name: local_folder(name) for name in names}
    return {name: _fingerprint(folder) for name, folder in folders.items() if folder is not None}


def _fingerprint(folder: Path) -> str:
    try:
        return _digest(folder, _state(folder))
    except OSError as error:
        raise BadInput(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise BadInput(f"{folder} holds a file whose name is not UTF-8: rename it") from error


def _state(folder: Path) -> State:
    """Name, inode, size and change time of every file: nobody can edit one and keep them all."""
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    files = ((path, path.stat()) for path in paths if path.is_file())
    return tuple((str(path), found.st_ino, found.st_size, found.st_ctime_ns) for path, found in files)


@lru_cache(maxsize=64)
def _digest(folder: Path, state: State) -> str:
    """Hashed once per state of the files: a thousand experiments on one model hash it once."""
    del state
    return file_digest(folder) if folder.is_file() else folder_digest(folder)
