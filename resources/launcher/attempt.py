"""One job from submission to its result: attach or submit, wait, judge. Knows back ends, and no Dagster."""

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from resources.errors import BadInput
from resources.job import Job, JobFailure, JobResult
from resources.launcher.command import command, environment
from resources.launcher.protocol import Busy, Launcher, Order
from resources.launcher.rundir import RunDir
from resources.launcher.tail import TextTail, last_text

Answer = TypeVar("Answer")

POLL_S = 0.05
"""Seconds between two looks at the run directory."""

BUSY_S = 1.0
"""Seconds until a back end that was busy is asked again."""

GONE_POLLS = 5
"""A back end must say this often that a job is gone before its missing exit code is believed."""

SLOWER = 1.1
"""Factor from one pause between two questions to the next: squeue is a call to Slurm's controller, which its manual
asks to keep rare, and with a `prefix` a login as well."""

SETTLE_S = 2.0
"""Longest that a shared file system may take to show a result that was written on another machine."""

MAX_REQUEUES = 50
"""Attempts of one job that others than itself may end; a job that saves nothing would otherwise go on for ever."""


def order_of(job: Job, run_dir: Path, python: str) -> Order:
    """What a back end is asked for."""
    return Order(
        command=command(job, run_dir, python),
        env=environment(job),
        run_dir=run_dir,
        name=f"{job.asset}-{job.key}",
        gpus=job.gpus,
        cpus=job.threads * job.processes,
        minutes=job.minutes,
        saving_s=job.saving_s,
    )


class JobLost(RuntimeError):
    """The job vanished without saying why: a node died, or somebody killed it. Worth another attempt."""


class JobError(RuntimeError):
    """The job failed by itself; the message ends with the traceback of the rank that failed first."""


@dataclass(frozen=True)
class Ears:
    """Who listens while a job runs."""

    hear: Callable[[], None]
    """Called again and again: forward whatever is new."""
    say: Callable[[str], None]
    """One line for the run log."""
    pause: Callable[[float], None]
    """Called with the seconds between two looks; what it raises interrupts the wait."""
    leave: Callable[[], bool]
    """Asked when this process is interrupted: whether the job may live on for a later attempt to attach to."""


@dataclass(frozen=True)
class Attempt:
    """A job, its run directory, and the back end that runs it."""

    job: Job
    run: RunDir
    launcher: Launcher
    python: str
    ears: Ears

    def result(self, env: Mapping[str, str]) -> JobResult:
        """Run to the end, over as many walltimes as it takes.

        Raises:
            BadInput: when the job says that its input is bad.
            JobError: when it failed.
            JobLost: when it vanished.
        """
        done = self._finished_unseen()
        if done is not None:
            self.ears.hear()
            return done
        handle = self._attach()
        if handle is None:
            self.run.prepare(self.job)
        for _ in range(MAX_REQUEUES):
            result = self._once(handle, env)
            if result is not None:
                return result
            handle = None
        raise JobError(
            f"{self.job.asset} was ended by the walltime or a more urgent job {MAX_REQUEUES} times; "
            f"raise its minutes ({self.job.minutes})"
        )

    def _once(self, handle: str | None, env: Mapping[str, str]) -> JobResult | None:
        with self._cancelling():
            if handle is None:
                self.run.again()
                handle = self._submit(env)
            code = self._wait(handle)
            self.launcher.release(handle)
        return self._judge(code, handle)

    def _finished_unseen(self) -> JobResult | None:
        """A result that was written while nobody watched, if what it speaks of is still there."""
        if not self._same_job() or not self.job.out.is_dir() or not any(self.job.out.iterdir()):
            return None
        return self.run.result()

    def _same_job(self) -> bool:
        before = self.run.job()
        return before is not None and (before.key, before.out) == (self.job.key, self.job.out)

    def _attach(self) -> str | None:
        handle = self.run.handle()
        if handle is None and self.run.path.exists():
            handle = self._patiently(self._find)
        if handle is None or self._is_copy() or not self._alive(handle) or not self._owns(handle):
            return None
        # Where jobs die with whoever started them, one that we find alive is at its end: we hold the key's lock.
        if not self._same_job() or not self.launcher.survives:
            self.launcher.cancel(handle)
            return None
        self.run.keep_handle(handle)
        self.ears.say(f"attached to job {handle}, which was still there")
        return handle

    def _is_copy(self) -> bool:
        """The run directory was copied from a home that is still there, whose job the handle names."""
        before = self.run.job()
        there = before and before.out.parent
        return there is not None and there.exists() and not there.samefile(self.job.out.parent)

    def _alive(self, handle: str) -> bool:
        try:
            return self.launcher.alive(handle)
        except BadInput:
            if self.run.exit_code() is None:
                raise
            return False  # another back end's job, but it has ended

    def _owns(self, handle: str) -> bool:
        return self._patiently(lambda: self.launcher.owns(handle, self._order()))

    def _order(self) -> Order:
        return order_of(self.job, self.run.path, self.python)

    def _find(self) -> str | None:
        return self.launcher.find(self.run.path)

    def _submit(self, env: Mapping[str, str]) -> str:
        plain = self._order()
        order = replace(plain, env={**plain.env, **env, "LORASCOPE_ATTEMPT": str(time.time_ns())})
        submit = self.launcher.submit
        handle = self._patiently(lambda: submit(order), lambda: self._find() or submit(order))
        self.run.keep_handle(handle)
        return handle

    def _patiently(self, ask: Callable[[], Answer], again: Callable[[], Answer] | None = None) -> Answer:
        """The back end's answer, however long that takes; what is in the way is said once. `again`: what else to ask
        from the second time on."""
        said = ""
        while True:
            try:
                return ask()
            except Busy as busy:
                if str(busy) != said:
                    self.ears.say(said := str(busy))
            self.ears.pause(BUSY_S)
            ask = again or ask

    @contextmanager
    def _cancelling(self) -> Iterator[None]:
        """Whatever interrupts us ends the job, unless it may live on."""
        try:
            yield
        except BaseException:
            handle = self.run.handle() or self._unwritten()
            if handle is not None:
                self._abandon(handle)
            raise

    def _unwritten(self) -> str | None:
        """The job whose handle was never written down; None also when that cannot be known now."""
        try:
            return self._find()
        except Busy as busy:
            self.ears.say(f"{busy}; if the job was taken, the next run of this asset attaches to it")
            return None
        except BadInput:
            return None  # there is no back end, and what interrupted us says so already

    def _abandon(self, handle: str) -> None:
        if self.launcher.survives and self.ears.leave():
            self.ears.say(f"job {handle} is left running; the next run of this asset attaches to it")
            return
        self.launcher.cancel(handle)
        if self.launcher.alive(handle):
            self.ears.say(f"job {handle} may still run: whoever runs it does not answer, or does not end it")

    def _wait(self, handle: str) -> int | None:
        """The exit code; None when the job is gone and left none."""
        gone, asked, status, pause = 0, 0.0, "", self.launcher.poll_s
        while True:
            self.ears.hear()
            code = self.run.exit_code()
            if code is not None and self._is_over(code):
                self.ears.hear()
                return code
            if code is not None:
                pause = self.launcher.poll_s
            if time.monotonic() - asked >= pause:
                asked = time.monotonic()
                now = self.launcher.status(handle)
                gone = 0 if now else gone + 1
                pause = self.launcher.poll_s if gone else min(pause * SLOWER, self.launcher.slowest_poll_s)
                if now and now != status:
                    self.ears.say(f"job {handle}: {now}")
                    status = now
            if gone >= GONE_POLLS:
                self.ears.hear()
                return self.run.exit_code()
            self.ears.pause(POLL_S)

    def _is_over(self, code: int) -> bool:
        """A queue may start anew, under the same handle, a job that it ended; none that ended by itself."""
        failure = self.run.failure()
        return code == 0 or not self.launcher.survives or (failure is not None and failure.kind != "interrupted")

    def _judge(self, code: int | None, handle: str) -> JobResult | None:
        """The result; None when its walltime or a more urgent job ended it, after which it is submitted again."""
        result = self._settled_result(code)
        if result is not None:
            return result
        failure = self.run.failure()
        if failure is not None and failure.kind == "bad_input":
            raise BadInput(failure.message)
        ending = "unknown" if code == 0 else self.launcher.ending(handle)
        if ending == "cancelled":
            raise JobError(f"job {handle} of {self.job.asset} was cancelled by somebody outside Dagster")
        if ending == "memory":
            raise JobError(
                f"job {handle} of {self.job.asset} ran out of memory on its node: ask for more, as by --mem=64G, under "
                f"options in compute.yaml{self._log()}"
            )
        if self.launcher.survives and self.run.stop.exists() and (failure is None or failure.kind == "interrupted"):
            if code is None and ending == "forgotten":
                raise JobLost(
                    f"job {handle} ({self.job.asset}) was ended from outside, and the queue does not say by whom"
                )
            by = "a more urgent job took its place" if ending == "preempted" else "the walltime ended the job"
            how = failure.message if failure is not None else "killed before it said that its state was saved"
            self.ears.say(f"{by} ({how}); it is submitted again")
            return None
        if failure is not None:
            raise JobError(_told(self.job, failure))
        if ending == "node":
            raise JobLost(f"the node of job {handle} ({self.job.asset}) failed")
        if ending == "blind":
            raise JobError(
                f"the node of job {handle} of {self.job.asset} cannot write to {self.run.path}: LORASCOPE_HOME must be "
                "a folder that every node sees"
            )
        raise self._unexplained(code)

    def _settled_result(self, code: int | None) -> JobResult | None:
        deadline = time.monotonic() + (SETTLE_S if code == 0 and self.launcher.survives else 0.0)
        while True:
            result = self.run.result()
            if result is not None or time.monotonic() >= deadline:
                return result
            time.sleep(0.2)

    def _unexplained(self, code: int | None) -> Exception:
        free = shutil.disk_usage(self.run.path).free
        full = f"; {os.strerror(errno.ENOSPC)} in {self.run.path}" if free < 1 << 20 else ""
        log = self._log()
        if code is None and not full:
            return JobLost(f"{self.job.asset} vanished without a result or an exit code{log}")
        how = "disappeared" if code is None else f"ended with exit code {code}{_signal_name(code)}"
        present = "a damaged" if (self.run.path / "result.json").exists() else "no"
        return JobError(f"{self.job.asset} {how} and left {present} result.json{full}{log}")

    def _log(self) -> str:
        tail = last_text(self.run.stderr) or last_text(self.run.stdout)
        return f"\nThe log ends with:\n{tail}" if tail else ""


def _signal_name(code: int) -> str:
    cause = ", most often out of memory" if code == 128 + signal.SIGKILL else ""
    return f" (signal {code - 128}{cause})" if code > 128 else ""


def _told(job: Job, failure: JobFailure) -> str:
    where = f" on rank {failure.rank}" if job.processes > 1 else ""
    return f"{job.asset} failed{where}: {failure.message}\n\n{failure.traceback}"


class Relay:
    """Raw output of all ranks into this process's own, where Dagster's compute logs pick it up."""

    def __init__(self, run: RunDir) -> None:
        self._pairs = ((TextTail(run.stdout), "stdout"), (TextTail(run.stderr), "stderr"))

    def forward(self) -> None:
        """Pass on whatever is new."""
        for tail, name in self._pairs:
            stream = getattr(sys, name)
            for text in tail.read():
                stream.write(text)
                stream.flush()
