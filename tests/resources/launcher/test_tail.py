"""Nothing that another process writes is lost, doubled or cut, however the writes fall."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from resources.launcher.tail import LineTail, TextTail, last_text

lines = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"|")), max_size=12)


@given(lines, st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(0, 11))
def test_lines_arrive_whole_and_once_wherever_writes_and_restarts_fall(
    wanted: list[bytes], cuts: list[int], restart: int
) -> None:
    whole = b"".join(line + b"\n" for line in wanted)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages"
        tail, got, position = LineTail(path), [], 0
        for index in range(len(whole) + 1):
            step = cuts[index % len(cuts)]
            with path.open("ab") as file:
                file.write(whole[position : position + step])
            position += step
            got += tail.read()
            if index == restart:
                tail = LineTail(path, tail.offset)
            if position >= len(whole):
                break
        got += tail.read()
    assert got == wanted


@given(st.text(max_size=40), st.integers(1, 5))
def test_characters_are_never_cut_in_half(text: str, step: int) -> None:
    encoded = text.encode("utf-8", "replace")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        tail, got = TextTail(path), ""
        for begin in range(0, len(encoded), step):
            with path.open("ab") as file:
                file.write(encoded[begin : begin + step])
            got += "".join(tail.read())
    assert got == encoded.decode()


def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert list(LineTail(tmp_path / "none").read()) == []
    assert last_text(tmp_path / "none") == ""


def test_an_unfinished_line_waits_for_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    path.write_bytes(b"one\ntw")
    tail = LineTail(path)
    assert list(tail.read()) == [b"one"]
    with path.open("ab") as file:
        file.write(b"o\n")
    assert list(tail.read()) == [b"two"]
