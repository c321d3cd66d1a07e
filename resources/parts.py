"""Parts of a job's work that a later attempt goes on from, each beside its SHA-256: a damaged one is made again."""

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from resources.keys import file_digest
from resources.whole import whole, write_whole

_NOTE = ".{}.sha256"
"""Name of the file that holds the hash of a part."""


@contextmanager
def noted(path: Path) -> Iterator[Path]:
    """As `whole`; the file's hash is noted too, so that `drop_damaged` can tell whether the file still holds it."""
    with whole(path) as partial:
        yield partial
        note = path.with_name(_NOTE.format(path.name))
        # A kill between this and the rename leaves the file that was there before: its hash stays beside the new one.
        before = note.read_text(errors="replace").split()[-1:] if note.exists() else []
        write_whole(note, "\n".join([*before, file_digest(partial)]))


def drop_damaged(folder: Path) -> list[Path]:
    """Remove every part below a folder that is not what was noted; returns what was removed."""
    notes = list(folder.rglob(_NOTE.format("*")))
    parts = [note.with_name(note.name[1 : -len(".sha256")]) for note in notes]
    with ThreadPoolExecutor(thread_name_prefix="part-reader") as pool:
        damaged = [part for part, bad in zip(parts, pool.map(_is_damaged, parts, notes), strict=True) if bad]
    for part in damaged:
        part.unlink()
    return damaged


def _is_damaged(part: Path, note: Path) -> bool:
    try:
        return file_digest(part) not in note.read_text(errors="replace").split()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return True
