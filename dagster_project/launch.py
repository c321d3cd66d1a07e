"""The Dagster side of a job: its Pipes session, its place in the pool, and what becomes of it when a run is stopped."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import dagster as dg
from dagster_pipes import PipesDefaultMessageWriter

from dagster_project import metadata
from dagster_project.slot import slot
from dagster_project.wanted import Wanted, is_terminated, unbroken
from resources.job import Job, JobResult
from resources.launcher.attempt import Attempt, Ears, JobError, JobLost, Relay
from resources.launcher.deployment import Deployment
from resources.launcher.fit import check_fits
from resources.launcher.rundir import RunDir
from resources.launcher.tail import LineTail

NODE_RETRIES = 2
"""Further attempts when a job vanished with its node."""


def launch(context: dg.AssetExecutionContext, job: Job, run_dir: Path, deployment: Deployment) -> JobResult:
    """Run a job to its end, or attach to the one that already runs in `run_dir`.

    Raises:
        BadInput: when the job fits on no node, or cannot work with what the user gave.
        dagster.Failure: when it failed by itself; the failing rank's traceback is in the description.
        dagster.RetryRequested: when it vanished with its node.
        dagster.DagsterExecutionInterruptedError: when its run was terminated before it began.
    """
    check_fits(job, deployment)
    _check_wanted(context)
    place = deployment.for_gpus(job.gpus)
    run = RunDir(run_dir)
    reader = MessageReader(run, context)
    relay = Relay(run)
    wanted = Wanted(context.instance, context.run.run_id)

    def hear() -> None:
        reader.hear()
        relay.forward()

    def leave() -> bool:
        return not is_terminated(context.instance, context.run.run_id)

    ears = Ears(hear, unbroken()(context.log.info), wanted.pause, leave)
    # The slot first: of a run that is stopped while it waits, Pipes would warn that no worker has said a word.
    with (
        _as_dagster_says(),
        slot(context, wanted.pause) if job.gpus else nullcontext(),
        # Pipes asks an asset's context for what Dagster has deprecated there; the op's context still has it.
        dg.open_pipes_session(context.op_execution_context, dg.PipesEnvContextInjector(), reader) as session,
    ):
        attempt = Attempt(job, run, place.launcher(), place.python, ears)
        return attempt.result(session.get_bootstrap_env_vars())


@unbroken()
def _check_wanted(context: dg.AssetExecutionContext) -> None:
    """A run terminated just as the queue lets it go is marked as canceled, and started (Dagster's issue 3323)."""
    canceled = dg.DagsterEventType.RUN_CANCELED
    if context.instance.get_records_for_run(context.run.run_id, of_type=canceled, limit=1).records:
        reason = "the run was terminated before it began"
        context.instance.report_run_canceling(context.run, reason)
        raise dg.DagsterExecutionInterruptedError(reason)


@contextmanager
def _as_dagster_says() -> Iterator[None]:
    try:
        yield
    except JobError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except JobLost as error:
        raise dg.RetryRequested(max_retries=NODE_RETRIES, seconds_to_wait=1) from error


class MessageReader(dg.PipesMessageReader):
    """Reads Pipes messages by whole lines, from this thread, and never empties their file.

    A later attempt of another run reads them again from the start; one of the same run goes on where it stopped.
    """

    def __init__(self, run: RunDir, context: dg.AssetExecutionContext) -> None:
        self._run = run
        self._context = context
        self._bookmark = run.path / f"read-{context.run.run_id}"
        self._lines: LineTail | None = None
        self._handler: dg.PipesMessageHandler | None = None
        self._closed = False
        self._opened = False

    @property
    def expected_writer_count(self) -> int:
        """Rank 0 alone speaks."""
        return 1

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[dict[str, str]]:
        """Where the worker writes, for as long as we listen."""
        self._handler = handler
        try:
            yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self._run.messages)}
        finally:
            self.hear()
            if self._closed:
                handler.handle_message({"__dagster_pipes_version": "0.1", "method": "closed", "params": None})

    def hear(self) -> None:
        """Hand on every new message."""
        if self._lines is None:
            self._lines = LineTail(self._run.messages, self._read_so_far())
        before = self._lines.offset
        for line in self._lines.read():
            self._handle(line)
        if self._lines.offset != before:
            # On a full disk a later attempt reads some lines twice; this one must go on.
            with suppress(OSError):
                self._bookmark.write_text(str(self._lines.offset))

    def _read_so_far(self) -> int:
        try:
            return int(self._bookmark.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    @unbroken()  # each line alone: a run that attaches to a job may have thousands to read
    def _handle(self, line: bytes) -> None:
        assert self._handler is not None
        try:
            message = json.loads(line)
        except ValueError:
            self._context.log.warning(f"a damaged message of {len(line)} bytes was left out: {line[:200]!r}")
            return
        # A job that the walltime ended opens and closes its line once more; Dagster knows only one of each.
        if message["method"] == "closed":
            self._closed = True
        elif message["method"] == "report_custom_message":
            self._show(**message["params"]["payload"])
        elif message["method"] != "opened" or not self._opened:
            self._opened = self._opened or message["method"] == "opened"
            self._handler.handle_message(message)

    def _show(self, picture: str, png: str) -> None:
        """A running job's picture, as an observation: an asset's metadata can only be set when it is materialised."""
        partition = self._context.partition_key if self._context.has_partition_key else None
        shown = metadata.picture(picture, png)
        self._context.log_event(dg.AssetObservation(self._context.asset_key, metadata=shown, partition=partition))

    def no_messages_debug_text(self) -> str:
        """Where messages should have come from."""
        return f"Messages were expected in {self._run.messages}."
