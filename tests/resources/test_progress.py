"""How often work speaks and shows itself."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from resources import progress
from resources.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, in a list of one."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now


def test_four_hours_have_a_picture_every_half_minute_at_first_and_fewer_than_ninety(clock: list[float]) -> None:
    shown: list[float] = []
    drawn: list[int] = []

    def draw() -> bytes:
        drawn.append(1)
        return b"PNG"

    def show(_name: str, _png: bytes) -> None:
        shown.append(clock[0] - 1000)

    working = Progress([].append, show=show)
    for _ in range(4 * 3600):
        clock[0] += 1
        working.picture("loss", draw)
    assert shown[:4] == [30, 60, 90, 120]
    assert 60 < len(shown) < 90
    assert len(drawn) == len(shown)
    assert all(later - earlier <= max(31, 0.06 * later) for earlier, later in pairwise(shown))


def test_nothing_is_drawn_where_nobody_looks(clock: list[float]) -> None:
    working = Progress([].append)
    clock[0] += 100
    working.picture("loss", lambda: pytest.fail("drawn"))


def test_lines_that_come_too_soon_are_dropped_and_the_last_never(clock: list[float]) -> None:
    lines: list[str] = []
    working = Progress(lines.append)
    for done in range(1, 11):
        clock[0] += 0.5
        working.step("train", done, 10, {"loss": 0.123456})
    assert [line.split("  ")[0] for line in lines] == ["train 1/10", "train 5/10", "train 9/10", "train 10/10"]
    assert lines[1] == "train 5/10  loss 0.1235  2 s left"


def test_reading_what_an_earlier_run_left_takes_no_part_in_the_time_left(clock: list[float]) -> None:
    lines: list[str] = []
    working = Progress(lines.append, interval_s=0)
    for done in range(1, 101):
        clock[0] += 1
        working.step("label", done, 200, found=done)
    for done in range(101, 111):
        clock[0] += 2
        working.step("label", done, 200, found=100)
    assert lines[-1] == "label 110/200  180 s left"


def test_work_that_took_no_time_because_it_was_there_does_not_shorten_the_time_left(clock: list[float]) -> None:
    lines: list[str] = []
    working = Progress(lines.append, interval_s=0)
    for done in range(1, 13):
        working.step("spans tallied", done, 16, found=done)
    clock[0] += 60
    working.step("spans tallied", 13, 16, found=12)
    assert lines[-1] == "spans tallied 13/16  180 s left"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1.0, "1 s"), (299, "299 s"), (301, "5 min"), (4212, "70 min"), (3 * 3600, "3.0 h"), (35_211, "9.8 h")],
)
def test_the_time_left_is_told_in_the_unit_that_a_person_plans_with(
    clock: list[float], seconds: float, said: str
) -> None:
    lines: list[str] = []
    working = Progress(lines.append, interval_s=0)
    working.step("train", 1, 3)
    clock[0] += seconds
    working.step("train", 2, 3)
    assert lines[-1] == f"train 2/3  {said} left"
