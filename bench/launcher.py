"""What a job costs beyond its own work, next to the plainest way to do the same: python -m bench.launcher [JOBS]

`local` beside a plain subprocess, `slurm` beside plain sbatch, each job the same `/bin/true`, turn by turn in one run;
then many jobs in a row, after which nothing may be left. Slurm is measured where Debian's packages are or can be had.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from resources.launcher.deployment import Deployment
from resources.launcher.processes import marked, marker
from resources.launcher.protocol import Launcher, Order
from resources.launcher.rundir import RunDir
from tests.resources.launcher.slurm_cluster import Unavailable, start

TURNS = 20
Timed = Callable[[Path], None]


def through(launcher: Launcher) -> Timed:
    """A job through our launcher, waited for as an attempt does."""

    def run(folder: Path) -> None:
        done = RunDir(folder)
        handle = launcher.submit(Order(("/bin/true",), {}, folder, "bench", minutes=5))
        done.keep_handle(handle)
        while done.exit_code() is None:
            time.sleep(0.005)
        launcher.release(handle)
        assert done.exit_code() == 0

    return run


def plain_subprocess(folder: Path) -> None:
    """The least anybody would do."""
    with (folder / "log").open("wb") as log:
        subprocess.run(["/bin/sh", "-c", "/bin/true"], stdout=log, stderr=log, check=True)


def plain_sbatch(folder: Path) -> None:
    """sbatch of a script that says when it is done, polled as often as ours."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/sh\nsrun /bin/true\necho $? > {folder}/rc\n")
    subprocess.run(["sbatch", "--parsable", f"--output={folder}/log", script], check=True, capture_output=True)
    while not (folder / "rc").exists() or not (folder / "rc").read_text():
        time.sleep(0.005)


def turns(ways: dict[str, Timed], root: Path) -> dict[str, list[float]]:
    """Seconds of each way, turn by turn, so that a busy machine is busy for all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name, way in ways.items():
            folder = root / f"{name}-{turn}"
            folder.mkdir()
            began = time.perf_counter()
            way(folder)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def report(seconds: dict[str, list[float]], plain: str, ours: str, limit_s: float) -> None:
    """One line: medians and their difference."""
    before, after = statistics.median(seconds[plain]), statistics.median(seconds[ours])
    worst = max(seconds[ours])
    print(
        f"{ours:6} {after:.3f} s, {plain} {before:.3f} s: {after - before:+.3f} s a job, {after / before:.1f}x "
        f"(median of {TURNS}; slowest of ours {worst:.3f} s; at most +{limit_s} s wanted)"
    )


def many(name: str, launcher: Launcher, jobs: int, root: Path) -> None:
    """Jobs one after another; counts what was lost and what is left."""
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    began, lost, run = time.perf_counter(), 0, through(launcher)
    folders = [root / f"many-{name}-{index}" for index in range(jobs)]
    for folder in folders:
        folder.mkdir()
        try:
            run(folder)
        except AssertionError:
            lost += 1
    seconds = time.perf_counter() - began
    time.sleep(1)
    wanted = {marker(f"{name}:", folder) for folder in folders}
    processes = sum(found in wanted for _, found in marked())
    expected = {"job.sh", "rc", "handle", "stdout.log", "stderr.log"}
    files = sum(len({file.name for file in folder.iterdir()} - expected) for folder in folders)
    leaked = len(os.listdir("/proc/self/fd")) - descriptors  # noqa: PTH208
    print(
        f"{name:6} {jobs} jobs in {seconds:.1f} s: {lost} lost; "
        f"left over: {processes} processes, {leaked} descriptors, {files} files"
    )


def main() -> None:
    """Both back ends."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        local = Deployment(gpus=0, lease_folder=root / "leases").launcher()
        report(turns({"subprocess": plain_subprocess, "local": through(local)}, root), "subprocess", "local", 0.5)
        many("local", local, jobs, root)
        try:
            cluster = start(root / "slurm")
        except Unavailable as reason:
            print(f"slurm  not measured: {reason}")
            return
        os.environ["SLURM_CONF"] = str(cluster.conf)
        try:
            slurm = Deployment(backend="slurm").launcher()
            report(turns({"sbatch": plain_sbatch, "slurm": through(slurm)}, root), "sbatch", "slurm", 1.0)
            many("slurm", slurm, jobs // 2, root)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
