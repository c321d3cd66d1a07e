"""Runs one job in its own process, or as one rank of several: python -m resources.worker RUN_DIR

Knows no room and no Dagster: the job names the function, Pipes carries what it says, result.json proves success.
"""

import base64
import inspect
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, get_type_hints

from pydantic import BaseModel, JsonValue, ValidationError

from resources.disk import causes, trouble
from resources.errors import BadInput, Interrupted
from resources.job import Job, JobFailure, JobResult
from resources.launcher.keeper import PR_SET_PDEATHSIG, prctl
from resources.launcher.rundir import FAILURE, RESULT, RunDir
from resources.manifest import Column
from resources.parts import drop_damaged
from resources.progress import Progress
from resources.ranks import Rank, wait_for
from resources.whole import sync_all, write_whole

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

BAD_INPUT, INTERRUPTED, FAILED = 65, 75, 1
"""Exit codes (sysexits.h: EX_DATAERR, EX_TEMPFAIL)."""

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "numpy", "scipy", "vllm", "lm_eval")
"""What a manifest should name, if the job used it."""

PICTURE, PNG = "picture", "png"
"""Keys of the message that carries a picture to Dagster: its name, and the file in base64."""


def main(arguments: Sequence[str]) -> int:
    """Run the job of a run directory; the exit code."""
    run = RunDir(Path(arguments[0]))
    _die_with_parent()
    job = run.job()
    if job is None:
        sys.stderr.write(f"{run.path} holds no readable job.json\n")
        return BAD_INPUT
    rank = Rank.here()
    signal.signal(signal.SIGTERM, _interrupt)
    # peft 0.21 reads an attribute that transformers 5.23 renamed; users can do nothing about it.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    with _speaking(run, rank) as progress:
        try:
            _run(job, run, rank, progress)
        except Exception as error:
            return _report(error, run, rank)
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


@contextmanager
def _speaking(run: RunDir, rank: Rank) -> Iterator[Progress]:
    """How this rank speaks: rank 0 to the run log, with pictures, when Dagster listens, everybody else to stderr."""
    prefix = f"[rank {rank.index}] " if rank.world > 1 else ""

    def to_stderr(text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"{prefix}{text}\n")
            sys.stderr.flush()

    pipes = None if rank.index else _pipes()
    if pipes is None:
        yield Progress(to_stderr, stop=run.stop.exists)
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

    yield Progress(to_dagster, stop=run.stop.exists, show=show)
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


def _run(job: Job, run: RunDir, rank: Rank, progress: Progress) -> None:
    """The ranks meet by files, before and after any torch."""
    check_shape(job, rank.world, os.environ.get("CUDA_VISIBLE_DEVICES"))
    began = time.monotonic()
    met, ended = (f"rank-{rank.attempt}-{where}" for where in ("start", "end"))
    if rank.index == 0:
        _empty(job.out)
        job.scratch.mkdir(parents=True, exist_ok=True)
        for part in drop_damaged(job.scratch):
            progress.say(f"{part} was damaged since an earlier attempt wrote it: it is made again")
        (run.path / met).touch()
    wait_for([run.path / met])
    metrics = _call(job, progress)
    (run.path / f"{ended}-{rank.index}").touch()
    if rank.index == 0:
        wait_for(run.path / f"{ended}-{other}" for other in range(rank.world))
        sync_all(job.out)  # a result that outlives a power cut must not speak of files that do not
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
    function = resolve_name(job.call)
    metrics = function(**arguments_of(job, function, progress))
    return metrics.model_dump(mode="json") if isinstance(metrics, BaseModel) else {}


def _result(job: Job, metrics: dict[str, JsonValue], seconds: float) -> JobResult:
    cost = metrics.get("cost_usd", 0.0)
    return JobResult(
        metrics=metrics,
        columns=columns_of(job),
        seconds=seconds,
        device=_device(job),
        packages=_packages(),
        cost_usd=float(cost) if isinstance(cost, int | float) else 0.0,
    )


def columns_of(job: Job) -> list[Column]:
    """The columns of the artifact's table; an artifact with a `schema` need not build a large table to tell them."""
    artifact = resolve_name(job.artifact).open(job.out)
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
        return f"{job.gpus} x {torch.cuda.get_device_name()}"
    return f"cpu ({job.processes} processes x {job.threads} threads)"


def _packages() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES if name in sys.modules}


def _report(error: Exception, run: RunDir, rank: Rank) -> int:
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
    failure = JobFailure(kind=kind, message=str(error) or type(error).__name__, traceback=text, rank=rank.index)
    mine = run.path / f"rank-failure-{rank.index}"
    with suppress(OSError):
        write_whole(mine, failure.model_dump_json(indent=1))
        with suppress(FileExistsError):
            (run.path / FAILURE).hardlink_to(mine)
    return code


def _kind(error: Exception) -> tuple[str, int]:
    if isinstance(error, BadInput):
        return "bad_input", BAD_INPUT
    # transformers makes a ModuleNotFoundError of whatever ends one of its imports
    if any(isinstance(cause, Interrupted) for cause in causes(error)):
        return "interrupted", INTERRUPTED
    return "error", FAILED


def leave(code: int) -> NoReturn:
    """End at once: all is written. Python takes half a second to put torch's modules away, and NCCL's communicator is
    never put away by a process that failed alone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a full disk
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
