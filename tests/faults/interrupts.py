"""Signals to a step that does nothing but log and ask for its run: how many of them end it, bare and between lines.

python -m tests.faults.interrupts --signals 3000 --seed 1
"""

import argparse
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable

import dagster as dg
from dagster._core.errors import raise_execution_interrupts

from dagster_project.wanted import unbroken

SOON_S = 0.05
"""A signal comes within so many seconds of the first line: some five lines."""
LOST_S = 1.0
"""One that has ended nothing for so long was lost."""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def ends(work: Callable[[], None], delay_s: float) -> bool:
    """Whether a signal after so many seconds ends the repeated work."""
    sent = threading.Event()

    def send() -> None:
        time.sleep(delay_s)
        os.kill(os.getpid(), signal.SIGINT)
        sent.set()

    sender = threading.Thread(target=send)
    try:
        with raise_execution_interrupts():
            sender.start()
            while not sent.is_set():
                work()
            deadline = time.monotonic() + LOST_S
            while time.monotonic() < deadline:
                work()
    except dg.DagsterExecutionInterruptedError:
        return True
    finally:
        sender.join()
    return False


def lost(signals: int, seed: int, wrap: Callable[[Callable[[], None]], Callable[[], None]]) -> int:
    """How many of the signals ended nothing, when `wrap` stands around each line and question."""
    moments, ended = random.Random(seed), []

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        def work() -> None:
            context.log.info("train")
            context.instance.get_run_by_id(context.run_id)

        wrapped = wrap(work)
        ended.extend(ends(wrapped, moments.uniform(0, SOON_S)) for _ in range(signals))

    @dg.job(executor_def=dg.in_process_executor)
    def steps() -> None:
        step()

    with dg.instance_for_test() as instance:
        assert steps.execute_in_process(instance=instance, run_config=QUIET).success
    return ended.count(False)


def main() -> None:
    """Print both counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    # Python and SQLAlchemy tell on standard error what a signal has met.
    sys.unraisablehook = lambda _: None
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
    for name, wrap in (("bare", lambda work: work), ("between lines", unbroken())):
        count = lost(given.signals, given.seed, wrap)
        sys.stdout.write(f"{name}: {count} of {given.signals} lost\n")


if __name__ == "__main__":
    main()
