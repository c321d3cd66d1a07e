"""The command line and environment of a job: plain Python for one process, torchrun for several."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from resources.home import find_home
from resources.job import Job
from resources.sources import PROJECT

WORKER = "resources.worker"
TORCHRUN = "resources.launcher.torchrun"
ONE_MACHINE = ("--standalone", "--local-addr", "127.0.0.1")
"""How torchrun's ranks find each other. Without the address they ask for the machine's own name, which a VPN may have
changed, and wait minutes for an answer."""
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""glibc keeps freed tensors below 32 MB (the most that it takes; more is ignored) for the next ones: mapping their
pages anew is an eighth of the ablation's CPU time (bench/RESULTS.md)."""
SHORT_SPIN = {"GOMP_SPINCOUNT": "5000"}
"""Turns that a thread of torch's waits for the others before it sleeps, instead of 300,000: where something else wants
a core too, those keep it from the thread that is waited for (bench/RESULTS.md)."""


def command(job: Job, run_dir: Path, python: str) -> tuple[str, ...]:
    """What the node runs."""
    if job.processes == 1:
        return (python, "-m", WORKER, str(run_dir))
    # without a folder of its own torchrun leaves one in the machine's temporary folder at every run
    logs = ("--log-dir", str(run_dir / "ranks"))
    ranks = ("--nproc-per-node", str(job.processes), "--max-restarts", "0")
    return (python, "-m", TORCHRUN, *ONE_MACHINE, *ranks, *logs, "-m", WORKER, str(run_dir))


def environment(job: Job) -> dict[str, str]:
    """Variables every rank needs before its first import. No keys: the script that holds these stays on disk."""
    home = find_home()
    return {
        "OMP_NUM_THREADS": str(job.threads),
        "PYTHONHASHSEED": "0",
        "PYTHONOPTIMIZE": "",  # with 2, transformers has no docstrings to read and cannot be imported
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "SPT_NOENV": "1",  # else setproctitle, by which vLLM names its processes, writes over what marks them as ours
        # absolute: a worker runs in the project's folder, and on another machine where ssh hands on no variable
        "LORASCOPE_HOME": str(home.root),
        "LORASCOPE_EXPERIMENTS": str(home.experiments),
        **KEPT_MEMORY,
        **SHORT_SPIN,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH", "")))),
    }


def script(command: Sequence[str], env: Mapping[str, str]) -> str:
    """A shell script that a person can run again by hand."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())
    return f"#!/bin/sh\n{exports}cd {shlex.quote(str(PROJECT))} || exit\nexec {shlex.join(command)}\n"
