"""Reading files that another process is still writing, and never losing or inventing a line."""

import codecs
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 20
"""Bytes read at once."""


class Tail:
    """New bytes of a growing file; a file that does not exist yet is empty."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset

    def chunks(self) -> Iterator[bytes]:
        """What was appended since the last call."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            while chunk := file.read(CHUNK):
                self.offset += len(chunk)
                yield chunk


class TextTail:
    """New text; a character whose bytes are half written waits for the rest."""

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> Iterator[str]:
        """What was appended since the last call."""
        return (self._decoder.decode(chunk) for chunk in self._tail.chunks())


class LineTail:
    """New whole lines, of any length; the rest waits for its newline."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._tail = Tail(path, offset)
        self._parts: list[bytes] = []
        self.offset = offset
        """Where the last line that was given out ends."""

    def read(self) -> Iterator[bytes]:
        """Lines without their newline."""
        for chunk in self._tail.chunks():
            *whole, rest = chunk.split(b"\n")
            for line in whole:
                line = b"".join((*self._parts, line))
                self._parts.clear()
                self.offset += len(line) + 1
                yield line
            self._parts.append(rest)


def last_text(path: Path, limit: int = 4000) -> str:
    """The end of a log, for an error message."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - limit))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
