"""Outside data by name: a folder of this machine, or a repository of the hub."""

import os
from pathlib import Path

from resources.errors import BadInput, quoted

PROJECT = Path(__file__).resolve().parents[1]
"""Relative names are looked up here, so that a clone finds what it ships from any working directory."""
MOST_FILES = 10_000
"""A folder with more is not a model or a dataset but a mistake, such as `/`, which would be hashed for hours."""


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
