"""Two processes that need the same key: one works, the other waits, and a dead holder is noticed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from resources.lock import held, try_hold, try_lock

HOLD = """
import sys, time
from pathlib import Path
from resources.lock import held
with held(Path(sys.argv[1]), "other experiment", print):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_waiter_is_told_who_holds_the_lock_and_goes_on_when_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = start_holder(path)
    told: list[str] = []

    def waiting(who: str) -> None:
        told.append(who)
        holder.kill()
        holder.wait()

    with held(path, "me", waiting, poll_s=0.05):
        assert path.read_text().startswith("me (process ")
    assert len(told) == 1
    assert told[0].startswith(f"other experiment (process {holder.pid} on ")
    assert holder.stdout is not None
    holder.stdout.close()


def test_a_lock_can_be_held_again_after_its_file_was_removed_while_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = try_hold(path)
    assert first is not None
    path.unlink()
    second = try_hold(path)
    assert second is not None
    assert try_hold(path) is None
    first.close()
    second.close()


@pytest.mark.parametrize("replaced", [False, True], ids=["gone", "made anew by another run"])
def test_a_lock_is_of_the_file_that_others_find_though_gc_removes_the_one_just_opened(
    tmp_path: Path, replaced: bool
) -> None:
    path = tmp_path / "lock"
    opened: list[IO[str]] = []

    def removed_once(path: Path) -> IO[str]:
        opened.append(path.open("a+"))
        if len(opened) == 1:
            path.unlink()
            if replaced:
                path.touch()
        return opened[-1]

    file = try_lock(path, removed_once)
    assert file is not None
    assert os.path.samestat(os.fstat(file.fileno()), path.stat())
    assert try_hold(path) is None
    assert [one.closed for one in opened] == [True, False]
    file.close()


def test_the_folders_of_a_lock_are_made_and_may_be_there(tmp_path: Path) -> None:
    for name in ("one", "other"):
        file = try_hold(tmp_path / "made" / "here" / name)
        assert file is not None
        file.close()
