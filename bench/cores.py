"""Wall seconds of work on a machine's cores: shared among processes of one thread each, as the launcher shares a
parallel stage, or by one process with torch's threads, as a script runs. Making the work is not timed.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch

Make = Callable[[int, int], Callable[[], object]]
"""(index, count) -> the work of one of `count` processes; runs in that process, and must be importable there."""


@dataclass(frozen=True)
class Way:
    """One way to use the cores."""

    make: Make
    processes: int
    threads: int

    def seconds(self) -> float:
        """From when all processes are ready until the last one is done."""
        context = multiprocessing.get_context("spawn")
        ready, times = context.Barrier(self.processes), context.Queue()
        members = [
            context.Process(target=_member, args=(self.make, index, self.processes, self.threads, ready, times))
            for index in range(self.processes)
        ]
        for member in members:
            member.start()
        spans = [times.get() for _ in members]
        for member in members:
            member.join()
        return max(end for _, end in spans) - min(begin for begin, _ in spans)


def _member(
    make: Make, index: int, count: int, threads: int, ready: Barrier, times: "Queue[tuple[float, float]]"
) -> None:
    torch.set_num_threads(threads)
    run = make(index, count)
    run()
    ready.wait()
    began = time.monotonic()
    run()
    times.put((began, time.monotonic()))


def compare(ways: Mapping[str, Way], turns: int) -> None:
    """Take turns; print each way's median, and how many times the first one's seconds it takes, turn by turn."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways)[:: 1 - 2 * (turn % 2)]:
            took[name].append(ways[name].seconds())
    first = next(iter(took.values()))
    for name, seconds in took.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds, first, strict=True)]
        how = f"{ways[name].processes} x {ways[name].threads} threads"
        beside = f"{statistics.median(ratios):.2f} x the first ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{name:8} {how}: {statistics.median(seconds):7.2f} s of wall time, {beside}", flush=True)
