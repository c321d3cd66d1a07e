"""Which revision of a hub repository a key may rest on: a commit, since a branch moves while the key stays."""

import re

from resources.sources import FileName, local_folder

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)


def check_commit(source: str, revision: str | None, published: tuple[str, str] = ("", "")) -> None:
    """Refuse a hub id without a commit of its own; a local folder needs none, since its content enters the key.

    A path that leads nowhere is no hub id: mistyped, or on a disk that is not mounted.

    `published`: the default source and its commit, which is no commit of any other source.

    Raises:
        ValueError: from a validator, so that the message names section and line.
    """
    if local_folder(source) is not None:
        return
    if local_folder(FileName(source)) is not None:
        raise ValueError(f"{source} is a file: name the folder that it lies in")
    if not _HUB_ID.fullmatch(source):
        raise ValueError(f"there is no folder {source}, and a hub id is written owner/name")
    advice = f"{source} is no local folder: set revision to a commit of the hub repository"
    if revision is None or not _COMMIT.fullmatch(revision):
        raise ValueError(f"{advice} (40 hex digits), not {revision}")
    if revision == published[1] and source != published[0]:
        raise ValueError(f"{advice}, {revision[:7]} is one of {published[0]}")
