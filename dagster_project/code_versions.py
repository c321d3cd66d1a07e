"""A room whose science changed must say so by its code version: python -m dagster_project.code_versions

Prints nothing when every room's recorded hash is its present one; `--refresh` records the present ones.
"""

import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from dagster_project.rooms import ROOMS, STAGES
from resources.keys import digest
from resources.sources import PROJECT

RECORD = PROJECT / "dagster_project" / "code_versions.json"
DOORS = ("asset.py", "__init__.py")
"""Files that cannot change a result."""


def science_hash(room: str, root: Path = PROJECT / "assets") -> str:
    """Hash of the room's code and data files, without comments, docstrings and layout."""
    files = sorted(path for path in (root / room).rglob("*") if path.is_file() and _counts(path))
    return digest("science", {path.relative_to(root / room).as_posix(): _content(path) for path in files})


def _counts(path: Path) -> bool:
    return path.name not in DOORS and "__pycache__" not in path.parts


def _content(path: Path) -> str:
    if path.suffix != ".py":
        return digest("file", path.read_bytes().hex())
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # pyright: ignore[reportAttributeAccessIssue]
    return _spelled(tree)


def _spelled(node: object) -> str:
    """As `ast.dump`, but the same under every Python: 3.12 gave nodes new empty fields, 3.13 left empty ones out."""
    if isinstance(node, ast.AST):
        fields = [f"{name}={_spelled(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_spelled, node))}]" if isinstance(node, list) else ascii(node)


def _is_text(line: ast.stmt) -> bool:
    """A docstring, of a module, class, function or field."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def present() -> dict[str, dict[str, object]]:
    """Room -> its science hash and the code versions of its stages."""
    return {
        room: {"science": science_hash(room), "versions": {s.asset: s.code_version for s in STAGES if s.room == room}}
        for room in ROOMS
    }


def unsaid(recorded: Mapping[str, Mapping[str, object]], now: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Rooms whose science changed while their code versions did not."""
    return [
        room
        for room, state in now.items()
        if room in recorded
        and recorded[room]["science"] != state["science"]
        and recorded[room]["versions"] == state["versions"]
    ]


def main(arguments: list[str]) -> int:
    """Name the rooms that changed without saying so, or record the present state."""
    if arguments == ["--refresh"]:
        RECORD.write_text(json.dumps(present(), indent=1) + "\n")
        return 0
    changed = unsaid(json.loads(RECORD.read_text()), present())
    for room in changed:
        sys.stderr.write(
            f"assets/{room} changed: bump `code_version` of its stages in config.py if results can differ, "
            "then run `python -m dagster_project.code_versions --refresh`\n"
        )
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
