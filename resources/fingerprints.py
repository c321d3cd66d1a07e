"""Content hashes of outside data, which enter keys; those of a large model outlive the process that made them."""

import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from resources.errors import BadInput
from resources.home import find_home
from resources.keys import digest, file_digest, file_state, folder_digest
from resources.sources import local_folder
from resources.whole import write_whole

State = tuple[tuple[str, int, int, int], ...]
KEPT_FROM = 2**30
"""Bytes of data whose hash is kept in the home: 65 GB take each command and each process of a job minutes. Less is
hashed anew by every process, which sees a turned bit too."""
_HASH = re.compile(r"[0-9a-f]{20,64}")


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
    """Name and state of every file."""
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return tuple((str(path), *file_state(path)) for path in paths if path.is_file())


@lru_cache(maxsize=64)
def _digest(folder: Path, state: State) -> str:
    """Hashed once per state of the files: a thousand experiments on one model hash it once."""
    if sum(size for _, _, size, _ in state) < KEPT_FROM:
        return _hashed(folder)
    kept = find_home().fingerprints / digest("state", [str(folder), state])
    if kept.is_file() and _HASH.fullmatch(known := kept.read_text(encoding="ascii", errors="replace")):
        return known
    found = _hashed(folder)
    with suppress(OSError):  # a home that others own, or a full one, costs no more than the time
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, found)
    return found


def _hashed(folder: Path) -> str:
    return file_digest(folder) if folder.is_file() else folder_digest(folder)
