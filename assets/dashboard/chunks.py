"""Data files that a page on file:// can read: a JSON header and flat arrays, gzip as text, as a script's argument.

Layout inside the gzip: uint32 length of the header, the header, then the arrays; all little-endian, each array at a
multiple of 4 bytes. The header's `arrays` say type, offset (from the first array) and count.
The text holds 15 bits in each character of UTF-16, 7 % more than the bytes (base64 in UTF-8: 33 %).
"""

import gzip
import json
import struct
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

# A browser reads `</script>` and U+2028 even inside strings of a script file; JSON allows both escapes.
_UNSAFE = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_ALIGNED = 4
"""Bytes: typed arrays of a browser begin at multiples of their element's size."""
_LEVEL = 4
"""Of gzip: 6 takes three times as long for 2.5 % less."""
_FIRST = 0x4000
"""Character of the 15 bits 0; from here to 0xBFFF there is no surrogate, quote, control or line end."""
_BYTES, _CHARACTERS = 15, 8
"""The least that is both whole bytes and whole characters."""
WRITERS = 2
"""Chunks compressed at once."""


def write_index(path: Path, value: object) -> None:
    """`lorascope.index('{...}')`: read first, uncompressed so that it is there at once.

    A browser reads JSON in a string faster than the same as an object of a script.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    quoted = _script_json(value).replace("\\", "\\\\").replace("'", "\\'")
    path.write_text(f"lorascope.index('{quoted}');\n", encoding="utf-8")


def write_chunk(
    folder: Path, kind: str, number: int, header: Mapping[str, object], arrays: Mapping[str, np.ndarray]
) -> int:
    """`<kind>-<number>.js`; returns its bytes."""
    name = f"{kind}-{number:04d}"
    packed = gzip.compress(_pack(header, arrays), _LEVEL, mtime=0)
    head, tail = f'lorascope.chunk("{name}",{len(packed)},"', '");\n'
    # A byte order mark decides the encoding before any header of a web server does.
    content = b"\xff\xfe" + head.encode("utf-16-le") + characters(packed) + tail.encode("utf-16-le")
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return len(content)


def characters(packed: bytes) -> bytes:
    """Bytes as UTF-16 (little-endian) text of 15 bits a character, first bit first; zero bits fill the last group."""
    padded = np.frombuffer(_padded(packed, b"\0", _BYTES), np.uint8).reshape(-1, _BYTES).astype(np.uint32)
    out = np.empty((len(padded), _CHARACTERS), "<u2")
    for i in range(_CHARACTERS):
        first, shift = divmod(15 * i, 8)
        three = [padded[:, j] if j < _BYTES else 0 for j in range(first, first + 3)]
        out[:, i] = ((three[0] << 16 | three[1] << 8 | three[2]) >> (9 - shift) & 0x7FFF) + _FIRST
    return out.tobytes()


class ChunkWriter:
    """Writes chunks beside the caller's work: compression leaves Python's lock free."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(WRITERS)
        self._sizes: list[Future[int]] = []

    def write(self, kind: str, number: int, header: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
        """As `write_chunk`, later."""
        self._sizes.append(self._pool.submit(write_chunk, self._folder, kind, number, header, arrays))

    def finish(self) -> int:
        """Bytes of all chunks, once they are written; raises what any of them raised."""
        self._pool.shutdown()
        return sum(size.result() for size in self._sizes)


def _pack(header: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> bytes:
    places: dict[str, tuple[str, int, int]] = {}
    parts: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        places[name] = (array.dtype.name, offset, array.size)
        parts.append(_padded(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(), b"\0"))
        offset += len(parts[-1])
    # Lone surrogates cannot be UTF-8, and a NUL is no text to some readers: ASCII escapes carry both.
    text = json.dumps({**header, "arrays": places}, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    head = _padded(text.encode(), b" ")
    return b"".join([struct.pack("<I", len(head)), head, *parts])


def _padded(content: bytes, fill: bytes, multiple: int = _ALIGNED) -> bytes:
    return content + fill * (-len(content) % multiple)


def _script_json(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    return text
