"""A power cut: whatever the disk holds at that moment, the next run ends with the artifact of an undisturbed one."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.killing import branch, contents, leftovers, processes_of, start, undisturbed
from tests.installation import Installation
from tests.mounts import mount, unmount

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
JOURNAL_S = 6.0
"""ext4 makes names durable every five seconds, and bytes after up to thirty."""


@dataclass(frozen=True)
class Disk:
    """An ext4 in a file, which holds what a disk would: what is written and not yet synced is in memory alone."""

    image: Path
    mounted: Path

    def mount(self) -> None:
        mount(self.mounted, "-o", "loop", self.image)

    def lose_power(self, home: Path) -> None:
        """End every process and all that was in memory alone."""
        processes = processes_of(home)
        _send(signal.SIGSTOP, processes)
        kept = self.image.read_bytes()
        _send(signal.SIGKILL, processes)
        unmount(self.mounted)
        self.image.unlink()
        self.image.write_bytes(kept)
        self.mount()


def _send(number: int, processes: Iterable[int]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "image", tmp_path / "disk")
    with made.image.open("wb") as file:
        file.truncate(200 * 2**20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4 here")
    subprocess.run(["mkfs.ext4", "-q", made.image], check=True)
    made.mount()
    yield made
    unmount(made.mounted)


@pytest.mark.parametrize(
    ("asset", "moment"),
    [
        ("s1k_dataset", "runs/*/result.json"),
        ("steering_effects", "store/.partial/*/*/scratch/doses/*.parquet"),
        ("batchtopk_sae", "store/.partial/*/*/scratch/baseline-*.json"),
    ],
)
def test_a_run_after_a_power_cut_ends_with_the_artifact_of_an_undisturbed_one(
    tiny: Installation, tmp_path: Path, disk: Disk, asset: str, moment: str
) -> None:
    """The cut comes when the name of the file has become durable; the run itself stands still, as a busy one does."""
    installation = branch(tiny, disk.mounted, [asset])
    subprocess.run(["sync"], check=True)
    process = start(installation, [asset], tmp_path / "cut.log")
    while not any(installation.home.glob(moment)):
        assert process.poll() is None, (tmp_path / "cut.log").read_text()
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    time.sleep(JOURNAL_S)
    disk.lose_power(installation.home)
    process.wait()
    code = start(installation, [asset], tmp_path / "next.log").wait()
    assert code == 0, (tmp_path / "next.log").read_text()[-3000:]
    assert contents(installation.home, [asset]) == undisturbed(tiny, asset)
    assert leftovers(installation.home) == []
