"""Runs one job in its own process, or as one rank of several: python -m resources.worker RUN_DIR

Knows no room and no Dagster: the job names the function, Pipes carries what it says, result.json proves success.
"""

import base64
import importlib
import inspect
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from pydantic import BaseModel, JsonValue, ValidationError

from resources.disk import trouble
from resources.errors import BadInput, Interrupted
from resources.job import Job, JobFailure, JobResult
from resources.launcher.keeper import PR_SET_PDEATHSIG, prctl
from resources.launcher.rundir import FAILURE, RESULT, RunDir, write_whole
from resources.manifest import Column
from resources.progress import Progress

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

BAD_INPUT, INTERRUPTED, FAILED = 65, 75, 1
"""Exit codes (sysexits.h: EX_DATAERR, EX_TEMPFAIL)."""

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "numpy", "scipy", "vllm", "lm_eval")
"""What a manifest should name, if the job used it."""

BARRIER_S = 86_400.0
"""Longest that one rank waits for another at the ends of a job; torchrun ends it much sooner if that one died."""

PICTURE, PNG = "picture", "png"
"""Keys of the message that carries a picture to Dagster: its name, and the file in base64."""


class Ranks:
    """Which process of the job this is, and how the others are met: by files, before and after any torch."""

    def __init__(self, run: RunDir) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        attempt = os.environ.get("LORASCOPE_ATTEMPT", "0") + "-" + os.environ.get("SLURM_RESTART_COUNT", "0")
        self._prefix = str(run.path / f"rank-{attempt}")

    def arrive(self, where: str) -> None:
        """Say that this rank has come here."""
        Path(f"{self._prefix}-{where}-{self.rank}").touch()

    def await_rank(self, rank: int, where: str) -> None:
        """Wait until another rank has come there."""
        deadline = time.monotonic() + BARRIER_S
        while not Path(f"{self._prefix}-{where}-{rank}").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"rank {rank} never came to '{where}'")
            time.sleep(0.02)


def main(arguments: Sequence[str]) -> int:
    """Run the job of a run directory; the exit code."""
    run = RunDir(Path(arguments[0]))
    _die_with_parent()
    job = run.job()
    if job is None:
        sys.stderr.write(f"{run.path} holds no readable job.json\n")
        return BAD_INPUT
    ranks = Ranks(run)
    signal.signal(signal.SIGTERM, _interrupt)
    # peft 0.21 reads an attribute that transformers 5.23 renamed; users can do nothing about it.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    with _voice(ranks) as voice:
        try:
            _run(job, run, ranks, voice)
        except Exception as error:
            return _report(error, run, ranks)
    return 0


def _die_with_parent() -> None:
    """torchrun killed by SIGKILL must not leave its ranks on the GPUs."""
    parent = os.getppid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted("stopped by SIGTERM")


@dataclass(frozen=True)
class Voice:
    """How a rank is heard, and, where Dagster listens, seen."""

    say: Callable[[str], None]
    show: Callable[[str, bytes], None] | None = None


@contextmanager
def _voice(ranks: Ranks) -> Iterator[Voice]:
    """How this rank speaks: rank 0 to the run log when Dagster listens, everybody else to stderr."""
    prefix = f"[rank {ranks.rank}] " if ranks.world_size > 1 else ""

    def to_stderr(text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"{prefix}{text}\n")
            sys.stderr.flush()

    pipes = None if ranks.rank else _pipes()
    if pipes is None:
        yield Voice(to_stderr)
        return
    lock = threading.Lock()

    def to_dagster(text: str) -> None:
        try:
            with lock:
                pipes.log.info(text)
        except OSError:
            # A message that cannot be written (full disk) is no reason to lose the work it speaks of.
            to_stderr(text)

    def show(name: str, picture: bytes) -> None:
        message = {PICTURE: name, PNG: base64.b64encode(picture).decode()}
        with suppress(OSError), lock:
            pipes.report_custom_message(message)

    yield Voice(to_dagster, show)
    with suppress(OSError):
        pipes.close()


def _pipes() -> "PipesContext | None":
    """The line to Dagster; None when nobody listens, or nothing can be written to it."""
    from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        return None
    try:
        return open_dagster_pipes()
    except OSError:
        return None


def _run(job: Job, run: RunDir, ranks: Ranks, voice: Voice) -> None:
    check_shape(job, ranks.world_size, os.environ.get("CUDA_VISIBLE_DEVICES"))
    began = time.monotonic()
    if ranks.rank == 0:
        _empty(job.out)
        job.scratch.mkdir(parents=True, exist_ok=True)
        ranks.arrive("start")
    ranks.await_rank(0, "start")
    metrics = _call(job, Progress(voice.say, stop=run.stop.exists, show=voice.show))
    ranks.arrive("end")
    if ranks.rank == 0:
        for other in range(1, ranks.world_size):
            ranks.await_rank(other, "end")
        write_whole(run.path / RESULT, _result(job, metrics, time.monotonic() - began).model_dump_json(indent=1))


def check_shape(job: Job, world_size: int, visible: str | None) -> None:
    """Make sure that the back end started what was asked for; `visible`: CUDA_VISIBLE_DEVICES.

    Raises:
        RuntimeError: with both numbers.
    """
    if world_size != job.processes:
        raise RuntimeError(f"{job.processes} processes were asked for, {world_size} started")
    if job.gpus and visible is not None and len(visible.split(",")) != job.gpus:
        raise RuntimeError(f"{job.gpus} GPUs were asked for, this process sees '{visible}'")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def load(name: str) -> Any:
    """What `module:attribute` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def arguments_of(job: Job, function: Callable[..., object], progress: Progress) -> dict[str, object]:
    """The keyword arguments of the job's function, by the names of its parameters.

    Raises:
        BadInput: when a section does not fit its config class.
        TypeError: when the function wants what the job does not have, or does not take what it has.
    """
    offered: dict[str, object] = {"out": job.out, "scratch": job.scratch, "progress": progress, "compute": job.compute}
    names = list(inspect.signature(function).parameters)
    hints = get_type_hints(function)
    for name, values in job.sections.items():
        if name in names:
            offered[name] = _section(name, hints[name], values)
    offered.update(job.inputs)
    unknown = [name for name in names if name not in offered]
    unused = [name for name in (*job.sections, *job.inputs) if name not in names]
    if unknown or unused:
        raise TypeError(f"{job.call} takes {unknown or 'nothing'} that {job.asset} has not, and not {unused}")
    return {name: offered[name] for name in names}


def _section(name: str, config: type[BaseModel], values: dict[str, JsonValue]) -> BaseModel:
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"section '{name}' is not valid: {error}") from error


def _call(job: Job, progress: Progress) -> dict[str, JsonValue]:
    function = load(job.call)
    metrics = function(**arguments_of(job, function, progress))
    return metrics.model_dump(mode="json") if isinstance(metrics, BaseModel) else {}


def _result(job: Job, metrics: dict[str, JsonValue], seconds: float) -> JobResult:
    cost = metrics.get("cost_usd", 0.0)
    return JobResult(
        metrics=metrics,
        columns=columns_of(job),
        seconds=seconds,
        device=_device(job),
        peak_memory_bytes=_peak_memory(),
        packages=_packages(),
        cost_usd=float(cost) if isinstance(cost, int | float) else 0.0,
    )


def columns_of(job: Job) -> list[Column]:
    """The columns of the artifact's table; an artifact with a `schema` need not build a large table to tell them."""
    artifact = load(job.artifact).open(job.out)
    schema = artifact.schema if hasattr(artifact, "schema") else artifact.table().schema
    return [
        Column(
            name=field.name,
            type=str(field.type),
            description=(field.metadata or {}).get(b"description", b"").decode(),
        )
        for field in schema
    ]


def _device(job: Job) -> str:
    torch = sys.modules.get("torch")
    if job.gpus and torch is not None and torch.cuda.is_available():
        return f"{job.gpus * job.nodes} x {torch.cuda.get_device_name()}"
    return f"cpu ({job.processes} processes x {job.threads} threads)"


def _peak_memory() -> int:
    """Bytes: of this rank's GPU if it used one, else of this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _packages() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES if name in sys.modules}


def _report(error: Exception, run: RunDir, ranks: Ranks) -> int:
    """Leave failure.json unless another rank failed first, and the traceback in the log."""
    text = traceback.format_exc()
    said = trouble(error)
    if said is not None and not isinstance(error, BadInput):
        error = BadInput(said)
    kind, code = _kind(error)
    if kind == "interrupted" and not run.stop.exists():
        # torchrun ends the other ranks when one has died; the dead one is the story, not this.
        return INTERRUPTED
    if kind != "bad_input":
        sys.stderr.write(text)
    failure = JobFailure(kind=kind, message=str(error) or type(error).__name__, traceback=text, rank=ranks.rank)
    mine = run.path / f"rank-failure-{ranks.rank}"
    with suppress(OSError):
        write_whole(mine, failure.model_dump_json(indent=1))
        with suppress(FileExistsError):
            (run.path / FAILURE).hardlink_to(mine)
    return code


def _kind(error: Exception) -> tuple[str, int]:
    if isinstance(error, BadInput):
        return "bad_input", BAD_INPUT
    if isinstance(error, Interrupted):
        return "interrupted", INTERRUPTED
    return "error", FAILED


def leave(code: int) -> NoReturn:
    """End at once after success: all is written, and Python takes half a second to put torch's modules away."""
    if code:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a full disk
            stream.flush()
    os._exit(0)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
