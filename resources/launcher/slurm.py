"""Jobs in Slurm's queue: sbatch, srun, torchrun within. They outlive whoever submitted them.

Needs nothing but the five commands, so it also drives a login node: `prefix: [ssh, login-node]`, shared file system.
"""

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from resources.errors import BadInput, one_line
from resources.launcher.processes import KEEPER, marker
from resources.launcher.protocol import GRACE_S, MARKER, Busy, Ending, Order
from resources.launcher.rundir import FAILURE, RESULT, RunDir
from resources.sources import PROJECT

PREFIX = "slurm:"
KILL_S, GIVE_UP_S = 2.0, 4.0
"""Seconds after the grace at which what is left of a cancelled job is killed, and no longer waited for."""

ANSWER_S = 60.0
"""Seconds until a command has hung: longer than Slurm itself waits for its controller (MessageTimeout, 10 by default).
"""

TRANSIENT = ("Socket timed out", "Unable to contact slurm", "Connection refused", "Zero Bytes were transmitted")
"""Answers of a controller that is restarting or overloaded; the same question may work a moment later."""

OBEYED = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SCANCEL_", "SCONTROL_")
"""Beginnings of variables that its commands obey: they describe the allocation that we may run in, and srun would obey
them in the job (after `salloc --gpus=1` one of four GPUs would see one), or somebody's habits (with
`SQUEUE_STATES=RUNNING` a queued job looks lost)."""

CLIENT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS")
"""What of it they need to reach a controller."""

_JOB_ID = re.compile(r"^(\d+)(?:;\S+)?\s*$", re.MULTILINE)
"""What `sbatch --parsable` prints: the number, and the cluster where there are several."""
_ANSWER, _NAMES = "state:", "names:"
"""Begin every line that we asked squeue for, whatever else greets on the same stream."""
NO_SUCH_COMMAND = 127
"""A shell's exit code."""
SSH_BROKE = 255
"""Exit code of an ssh that lost its connection, and of one that hung."""
NO_LOG = "0:53"
"""Slurm's exit code of a job whose output files could not be opened on its node."""
ENDINGS: dict[str, Ending] = {
    "CANCELLED": "cancelled",
    "TIMEOUT": "walltime",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "OUT_OF_MEMORY": "memory",
}


@dataclass(frozen=True)
class SlurmLauncher:
    """A handle is Slurm's job id."""

    python: str
    prefix: tuple[str, ...] = ()
    gpu_type: str = "h200"
    options: tuple[str, ...] = ()
    """Further arguments of sbatch: --partition=..., --account=..., --mem=..."""
    poll_s: float = 1.0
    slowest_poll_s: float = 30.0
    grace_s: float = GRACE_S
    survives: bool = True

    def submit(self, order: Order) -> str:
        """Queue the job.

        Raises:
            Busy: when Slurm cannot be asked just now, and may have taken the job.
            BadInput: when Slurm refuses the job, or is not there.
        """
        run = RunDir(order.run_dir)
        run.script.write_text(self._script(order))
        done = self._ask(self.submission(order))
        # A wrapper or a login shell may greet on the same stream.
        ids = _JOB_ID.findall(done.stdout) if done.returncode == 0 else []
        if ids:
            return ids[-1]
        # The controller may have taken the job and failed to say so.
        found = self.find(order.run_dir)
        if found is not None:
            return found
        if _is_transient(done):
            raise Busy(f"Slurm does not answer: {done.stderr.strip()}")
        said = one_line(" ".join((done.stderr + done.stdout).split()))
        raise BadInput(f"Slurm took no job for {order.name}, it said: {said}; see compute.yaml")

    def submission(self, order: Order) -> tuple[str, ...]:
        """The sbatch command line."""
        run = RunDir(order.run_dir)
        gres = (f"--gres=gpu:{self.gpu_type}:{order.gpus}" if self.gpu_type else f"--gres=gpu:{order.gpus}",)
        return (
            "sbatch",
            "--parsable",
            f"--job-name={order.name}",
            f"--chdir={PROJECT}",
            f"--output={run.stdout}",
            f"--error={run.stderr}",
            "--open-mode=append",
            "--requeue",
            "--nodes=1",
            "--ntasks-per-node=1",
            f"--cpus-per-task={order.cpus}",
            *(gres if order.gpus else ()),
            f"--time={order.minutes}",
            f"--signal=USR1@{order.saving_s}",
            *self.options,
            f"--comment={_marker(order)}",
            str(run.script),
        )

    def _script(self, order: Order) -> str:
        run = RunDir(order.run_dir)
        exports = {**order.env, MARKER: _marker(order)}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
        stale = shlex.join(str(path) for path in (run.rc, run.stop, run.path / RESULT, run.path / FAILURE))
        keeper = (self.python, "-IS", str(KEEPER), "0", str(self.grace_s), "-", str(run.stop))
        tasks = f"srun --nodes=1 --ntasks-per-node=1 --cpus-per-task={order.cpus} --kill-on-bad-exit=1"
        return "\n".join(
            [
                "#!/bin/bash",
                *lines,
                "# Slurm starts a job anew after its node failed: what that attempt left behind is not ours.",
                f"rm -f {stale}",
                f"{tasks} {shlex.join((*keeper, *order.command))}",
                "code=$?",
                f"echo $code > {shlex.quote(str(run.rc) + '.tmp')}",
                f"mv {shlex.quote(str(run.rc) + '.tmp')} {shlex.quote(str(run.rc))}",
                "exit $code",
                "",
            ]
        )

    def shown(self, order: Order) -> tuple[str, ...]:
        """The submission, and what srun starts on the node."""
        return (shlex.join((*self.prefix, *self.submission(order))), f"srun ... {shlex.join(order.command)}")

    def find(self, run_dir: Path) -> str | None:
        """The job whose submission succeeded just before its submitter died.

        Raises:
            Busy: when Slurm does not answer, which does not mean that there is none.
        """
        done = self._ask(("squeue", "--noheader", "--me", "--format=%i %k"))
        if done.returncode:
            raise Busy(f"Slurm does not answer: {done.stderr.strip()}")
        wanted = marker(PREFIX, run_dir)
        pairs = (line.partition(" ") for line in done.stdout.splitlines())
        return next((job for job, _, comment in pairs if comment == wanted), None)

    def status(self, handle: str) -> str:
        """Slurm's state, and its reason while pending; a controller that does not answer has not lost the job."""
        done = self._ask(("squeue", "--noheader", f"--jobs={handle}", f"--format={_ANSWER} %T %r"))
        if done.returncode:
            return "" if "Invalid job id" in done.stderr else "unknown: Slurm does not answer"
        answers = [line for line in done.stdout.splitlines() if line.startswith(f"{_ANSWER} ")]
        if not answers:
            return ""
        state, _, reason = answers[-1].strip().removeprefix(f"{_ANSWER} ").partition(" ")
        return f"{state.lower()} ({reason})" if state == "PENDING" else state.lower()

    def alive(self, handle: str) -> bool:
        """Whether the job is queued or runs."""
        return bool(self.status(handle))

    def owns(self, handle: str, order: Order) -> bool:
        """By its name or our comment: an operator's options, or a cluster's own rules, may change one of them.

        Raises:
            Busy: when Slurm does not answer.
        """
        done = self._ask(("squeue", "--noheader", f"--jobs={handle}", f"--format={_NAMES} %j %k"))
        if _is_transient(done):
            raise Busy(f"Slurm does not answer: {done.stderr.strip()}")
        answers = [line.split() for line in done.stdout.splitlines() if line.startswith(f"{_NAMES} ")]
        return not answers or not {order.name, _marker(order)}.isdisjoint(answers[-1])

    def ending(self, handle: str) -> Ending:
        """What Slurm remembers of a job that is gone; it forgets after MinJobAge."""
        done = self._ask(("scontrol", "--oneliner", "show", "job", handle))
        said = {name: value for name, _, value in (word.partition("=") for word in done.stdout.split())}
        if said.get("ExitCode") == NO_LOG:
            return "blind"
        return ENDINGS.get(said["JobState"], "unknown") if said.get("JobState") else "forgotten"

    def cancel(self, handle: str) -> None:
        """scancel, and SIGKILL for what is left after the grace."""
        self._ask(("scancel", handle))
        began, killed = time.monotonic(), False
        while self.alive(handle):
            waited = time.monotonic() - began
            if waited > self.grace_s + GIVE_UP_S:
                return
            if waited > self.grace_s + KILL_S and not killed:
                killed = True
                self._ask(("scancel", "--signal=KILL", "--full", handle))
            time.sleep(0.1)

    def release(self, handle: str) -> None:
        """Nothing is held on this side."""

    def _ask(self, command: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
        # A remote shell takes one string and splits it by itself.
        line = (*self.prefix, shlex.join(command)) if self.prefix else command
        try:
            done = subprocess.run(  # noqa: S603
                line,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=_environment(),
                timeout=ANSWER_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(line, SSH_BROKE, "", f"{command[0]} gave no answer in {ANSWER_S:g} s")
        except (FileNotFoundError, PermissionError) as error:
            raise BadInput(_absent(line[0])) from error
        if done.returncode == NO_SUCH_COMMAND:
            raise BadInput(_absent(command[0]))
        return done


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in CLIENT or not name.startswith(OBEYED)}


def _absent(program: str) -> str:
    return (
        f"{program} is not there: `backend: slurm` in compute.yaml needs Slurm's commands on this machine, "
        "or a `prefix` that leads to one that has them, such as [ssh, login-node]"
    )


def _marker(order: Order) -> str:
    return marker(PREFIX, order.run_dir)


def _is_transient(done: "subprocess.CompletedProcess[str]") -> bool:
    return done.returncode == SSH_BROKE or any(text in done.stderr for text in TRANSIENT)
