"""A full disk and a folder that may not be written: one sentence, a whole store, and on it goes afterwards."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resources.sources import PROJECT
from tests import mounts
from tests.faults.killing import leftovers, start
from tests.installation import TINY, Installation, build_installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """`mount(ARGUMENTS)` at a new folder; needs the right to mount."""
    folder = tmp_path / "disk"

    def mounted(*arguments: str | Path) -> Path:
        mounts.mount(folder, *arguments)
        return folder

    yield mounted
    mounts.unmount(folder)


def installation_on(disk: Path, folder: Path) -> Installation:
    experiments = build_installation(folder, [PROJECT / "experiments" / "mini.yaml", TINY]).experiments
    return Installation(disk / "home", experiments)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("moment", ["before the run", "while the job starts"])
def test_on_a_full_disk_a_run_says_so_in_one_sentence_and_goes_on_once_there_is_room(
    tmp_path: Path, mount: Mount, moment: str
) -> None:
    disk, log = mount("-t", "tmpfs", "-o", "size=30m", "tmpfs"), tmp_path / "log"
    full = installation_on(disk, tmp_path / "installation")
    full.home.mkdir()
    if moment == "before the run":
        fill(disk)
    process = start(full, ["s1k_dataset"], log)
    while moment == "while the job starts" and not any(full.home.glob("runs/*/job.sh")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    if moment == "while the job starts":
        fill(disk)
    assert process.wait() in (1, 2)
    assert "Traceback" not in log.read_text()
    assert re.search(r"the disk of \S+ is full: free some space and run the same command again", log.read_text())
    (disk / "ballast").unlink()
    assert full.json("run", "tiny", "s1k_dataset") == {
        "experiment": "tiny",
        "success": True,
        "s1k_dataset": "computed",
    }
    assert full.run("verify").stdout == "1 artifacts checked, 0 damaged files\n"
    assert leftovers(full.home) == []


def test_a_store_that_may_not_be_written_is_told_in_one_sentence_and_is_still_read(
    tmp_path: Path, mount: Mount
) -> None:
    """A read-only bind mount: root is not held back by modes."""
    owner = installation_on(tmp_path / "original", tmp_path / "installation")
    assert owner.run("run", "tiny", "s1k_dataset").returncode == 0
    guest = Installation(mount("--bind", "-o", "ro", tmp_path / "original") / "home", owner.experiments)
    done = guest.run("run", "tiny", "s1k_dataset")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stdout + done.stderr
    assert "cannot be read or written: give this user the right to, or set LORASCOPE_HOME" in done.stdout + done.stderr
    assert guest.plan("tiny")["s1k_dataset"]["cache"] == "hit"
    assert guest.run("show", "tiny", "s1k_dataset").returncode == 0
    assert guest.run("verify").returncode == 0
    assert owner.json("run", "tiny", "s1k_dataset") == {"experiment": "tiny", "success": True, "s1k_dataset": "hit"}
