"""Data files that a page on file:// can read: gzip in base64 inside a script that hands itself over."""

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

# A browser reads `</script>` and U+2028 even inside strings of a script file; JSON allows both escapes.
_UNSAFE = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_index(path: Path, value: object) -> None:
    """`lorascope.index({...})`: read first, uncompressed so that it is there at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"lorascope.index({_script_json(value)});\n")


def write_chunk(folder: Path, kind: str, number: int, values: Sequence[object]) -> int:
    """`<kind>-<number>.js` with a list; returns its bytes."""
    name = f"{kind}-{number:04d}"
    packed = gzip.compress(json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode(), 6, mtime=0)
    text = f'lorascope.chunk("{name}","{base64.b64encode(packed).decode()}");\n'
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return len(text)


def _script_json(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    return text
