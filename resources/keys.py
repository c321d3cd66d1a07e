"""Every cache key of the project: a tagged, canonical hash of what made the thing, and of nothing else.

After redun's `hashing.py`: all keys in one small file, structures tagged so that two kinds never collide.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

FileState = tuple[int, int, int]
KEY_LENGTH = 20
"""Hex digits: 80 bits, a collision chance below 1e-12 for a million artifacts."""

CARD, SETTINGS = "README.md", ".huggingface.yaml"
"""Of a dataset's folder: the YAML on top of the first, and the second, say which files are its rows."""
_FRONT_MATTER = re.compile(rb"\s*---(\r\n|\r|\n)(?P<yaml>[\S\s]*?)(\r\n|\r|\n)---[ \t]*(\r\n|\n|$)")


def digest(tag: str, value: object) -> str:
    """Hash of a JSON value; mappings are unordered, `1e-3` and `0.001` are one number.

    Raises:
        ValueError: for NaN or infinity, which no canonical JSON can hold.
    """
    text = json.dumps([tag, value], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def section_version(name: str, values: Mapping[str, object], sources: Mapping[str, str]) -> str:
    """Data version of `params/<name>`: the resolved section and the content of the local files it names."""
    return digest("section", [name, values, sources])


def artifact_key(asset: str, code_version: int, sections: Mapping[str, str], inputs: Mapping[str, str]) -> str:
    """Key and data version of an artifact, from the versions of its sections and of its inputs."""
    return digest("artifact", [asset, code_version, sections, inputs])


def bytes_digest(content: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_state(path: Path) -> FileState:
    """Inode, size and change time: nobody can edit a file and keep all three."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_ctime_ns


def folder_digest(folder: Path) -> str:
    """Hash of every file below a folder, by relative name and content; cards' prose and hidden files do not count."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_aside(path.relative_to(folder)))
    contents = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    return digest("folder", contents | _card_settings(folder / CARD))


def _is_aside(path: Path) -> bool:
    return path.suffix == ".md" or (path != Path(SETTINGS) and any(part.startswith(".") for part in path.parts))


def _card_settings(card: Path) -> dict[str, str]:
    found = _FRONT_MATTER.match(card.read_bytes()) if card.is_file() else None
    return {} if found is None else {card.name: bytes_digest(found["yaml"])}
