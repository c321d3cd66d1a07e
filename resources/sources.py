"""Outside data by name: a folder of this machine, or a repository of the hub."""

from pathlib import Path

from resources.keys import folder_digest

PROJECT = Path(__file__).resolve().parents[1]
"""Relative names are looked up here, so that a clone finds what it ships from any working directory."""


def local_folder(name: str) -> Path | None:
    """The folder that `name` means, or None when it is a hub id."""
    folder = Path(name).expanduser()
    folder = folder if folder.is_absolute() else PROJECT / folder
    return folder if folder.is_dir() else None


def fingerprints(names: tuple[str, ...]) -> dict[str, str]:
    """Content hash of each name that is a local folder; hub ids are pinned by their revision instead."""
    folders = {name: local_folder(name) for name in names}
    return {name: folder_digest(folder) for name, folder in folders.items() if folder is not None}
