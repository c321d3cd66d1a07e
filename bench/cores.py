"""Wall seconds on a machine's cores: ours, shared among processes of one thread each as the launcher shares a parallel
stage, beside the authors' script, one process with one of torch's threads or with one for each core.

Making the work and a first run of it are not timed.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier

import torch

Make = Callable[[int, int], Callable[[], object]]
"""(index, count) -> the work of one of `count` processes; runs in that process, and must be importable there."""
PATIENCE_S = 600
"""For the slowest process, until all are ready."""


@dataclass(frozen=True)
class Way:
    """One way to use the cores."""

    make: Make
    processes: int
    threads: int

    def seconds(self) -> float:
        """From when all processes are ready until the last one is done."""
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager, ProcessPoolExecutor(self.processes, context) as pool:
            ready = manager.Barrier(self.processes, timeout=PATIENCE_S)
            member = partial(_member, self.make, self.processes, self.threads, ready)
            spans = list(pool.map(member, range(self.processes)))
        return max(end for _, end in spans) - min(began for began, _ in spans)


def _member(make: Make, count: int, threads: int, ready: Barrier, index: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    run = make(index, count)
    run()
    ready.wait()
    began = time.monotonic()
    run()
    return began, time.monotonic()


def compare(ours: Make, authors: Make, cores: int, turns: int) -> None:
    """Take turns; print each way's median, and how many times our seconds it takes, turn by turn."""
    ways = {
        "ours": Way(ours, cores, 1),
        "authors": Way(authors, 1, cores),
        "authors, one thread": Way(authors, 1, 1),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways)[:: 1 - 2 * (turn % 2)]:
            took[name].append(ways[name].seconds())
    for name, seconds in took.items():
        ratios = [theirs / mine for theirs, mine in zip(seconds, took["ours"], strict=True)]
        how = f"{ways[name].processes} x {ways[name].threads} threads"
        beside = f"{statistics.median(ratios):.2f} x ours ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{name:19} {how}: {statistics.median(seconds):7.2f} s of wall time, {beside}", flush=True)
