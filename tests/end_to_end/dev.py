"""A `dagster dev` of its own (webserver, daemon, code server), driven through GraphQL as the UI does."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dagster_project.experiment import Experiments
from dagster_project.plan import keys
from resources.launcher.processes import marked, marker
from resources.launcher.rundir import RunDir
from tests.installation import Installation

Found = TypeVar("Found")

LAUNCH = """mutation ($asset: String!, $tags: [ExecutionTag!]!) { launchPipelineExecution(executionParams: {
  selector: {repositoryName: "__repository__", repositoryLocationName: "lorascope", pipelineName: "whole_paper",
             assetSelection: [{path: [$asset]}]}
  mode: "default", runConfigData: {}, executionMetadata: {tags: $tags}
}) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation ($run: String!) { terminateRun(runId: $run) { __typename
  ... on TerminateRunFailure { message } ... on PythonError { message } } }"""
PARTITION = """mutation ($name: String!) { addDynamicPartition(partitionsDefName: "experiment", partitionKey: $name,
  repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "lorascope"}) { __typename } }"""
RUNS = """{ runsOrError(filter: {statuses: [STARTED]}) { ... on Runs { results { runId } } } }"""
STATUS = "query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
EVENTS = """query ($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
  __typename ... on MessageEvent { message timestamp } } } } }"""
CAPTURED = "query ($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"
PATIENCE_S = 300
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
FILE_KEY = """query ($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
  ... on LogsCapturedEvent { fileKey } } } } }"""


@dataclass(frozen=True)
class Dev:
    """A running `dagster dev` and the installation that it serves."""

    installation: Installation
    root: str
    launched: list["LaunchedRun"] = field(default_factory=list)

    @property
    def daemon(self) -> int:
        """Process of the Dagster daemon."""
        return next(pid for pid in processes_of(self.installation) if b"dagster._daemon" in _words(pid))

    def ask(self, query: str, **variables: object) -> Any:
        """GraphQL's data.

        Raises:
            OSError: while nobody listens.
        """
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.root}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["data"]

    def launch(self, experiment: str, asset: str = "lora_checkpoint") -> "LaunchedRun":
        """Press Materialize."""
        self.ask(PARTITION, name=experiment)
        tags = [{"key": "dagster/partition", "value": experiment}]
        done = self.ask(LAUNCH, asset=asset, tags=tags)["launchPipelineExecution"]
        assert done["__typename"] == "LaunchRunSuccess", done
        key = self._key(experiment, asset)
        self.launched.append(LaunchedRun(self, done["run"]["runId"], self.installation.home, asset, key))
        return self.launched[-1]

    @contextmanager
    def started(self, experiment: str, asset: str = "lora_checkpoint") -> Iterator["LaunchedRun"]:
        """The run of a `lorascope run` in a terminal, which has ended when the block has."""
        there = self._run_ids()
        process = self.installation.start("run", experiment, asset)
        try:
            run_id = wait_for(lambda: next(iter(self._run_ids() - there), ""))
            yield LaunchedRun(self, run_id, self.installation.home, asset, self._key(experiment, asset))
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()

    def _run_ids(self) -> set[str]:
        return {run["runId"] for run in self.ask(RUNS)["runsOrError"]["results"]}

    def _key(self, experiment: str, asset: str) -> str:
        return keys(Experiments(self.installation.experiments).load(experiment))[asset]

    def end_all(self) -> None:
        """Terminate what a failed test left running, so that the next one meets an idle queue."""
        while self.launched:
            run = self.launched.pop()
            run.becomes("STARTED", *ENDED)
            if run.status not in ENDED:
                run.terminate()
                run.becomes(*ENDED)


@dataclass(frozen=True)
class LaunchedRun:
    """One run that was launched for one asset."""

    dev: Dev
    run_id: str
    home: Path
    asset: str
    key: str

    @property
    def folder(self) -> RunDir:
        """Where its job writes."""
        return RunDir(self.home / "runs" / f"{self.asset}-{self.key}")

    @property
    def artifact(self) -> Path:
        """Where the finished artifact lies."""
        return self.home / "store" / self.asset / self.key

    @property
    def status(self) -> str:
        """As the UI says."""
        return self.dev.ask(STATUS, run=self.run_id)["runOrError"]["status"]

    @property
    def lines(self) -> list[str]:
        """The run log."""
        events = self.dev.ask(EVENTS, run=self.run_id)["logsForRun"]["events"]
        return [event["message"] for event in events if event.get("message")]

    @property
    def worker(self) -> int:
        """Process that executes the run (and, in this project, its steps)."""
        line = wait_for(lambda: next((line for line in self.lines if "(pid: " in line), ""))
        return int(line.rpartition("(pid: ")[2].partition(")")[0])

    @property
    def output(self) -> dict[str, str]:
        """Standard output and error of its step, as the UI's compute logs show them."""
        events = self.dev.ask(FILE_KEY, run=self.run_id)["logsForRun"]["events"]
        file_key = next(event["fileKey"] for event in events if event.get("fileKey"))
        return self.dev.ask(CAPTURED, key=[self.run_id, "compute_logs", file_key])["capturedLogs"]

    def press_terminate(self) -> Any:
        """Press Terminate; what Dagster says to it."""
        return self.dev.ask(TERMINATE, run=self.run_id)["terminateRun"]

    def terminate(self) -> None:
        """Press Terminate, and see that Dagster has passed it on."""
        done = self.press_terminate()
        assert done["__typename"] == "TerminateRunSuccess", done

    def processes(self) -> list[int]:
        """Every living process of its job."""
        wanted = {marker(prefix, self.folder.path) for prefix in ("local:", "slurm:")}
        return [pid for pid, found in marked() if found in wanted]

    def says(self, text: str) -> str:
        """The line of the run log with this text, once it is there."""
        return self.wait_for(lambda: next((line for line in self.lines if text in line), ""))

    def becomes(self, *statuses: str) -> str:
        """Its status, once it is one of these."""
        return self.wait_for(lambda: self.status if self.status in statuses else "")

    def wait_for(self, condition: Callable[[], Found], seconds: float = PATIENCE_S) -> Found:
        """The condition's value once it is true; if it never is, what can be seen of the run."""
        return wait_for(condition, seconds, self._seen)

    def _seen(self) -> str:
        job = self.processes()
        others = sorted(set(processes_of(self.dev.installation)) - set(job))
        states = [
            f"{pid} {_read(Path(f'/proc/{pid}/wchan')).decode()} {_words(pid)[:120]!r}" for pid in (*job, *others)
        ]
        return "\n".join(
            [f"{self.status}, {len(job)} processes of the job, then all others", *states, *self.lines[-8:]]
        )


def wait_for(
    condition: Callable[[], Found], seconds: float = PATIENCE_S, seen: Callable[[], str] = lambda: ""
) -> Found:
    """The condition's value once it is true; `seen` says what is to be seen when it is not."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"nothing after {seconds} s; {seen()}"
        time.sleep(0.1)
    return value


@contextmanager
def open_dev(installation: Installation, environment: dict[str, str]) -> Iterator[Dev]:
    """Start everything; returns once GraphQL answers. Nothing of the installation is left afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (installation.home.parent / "dev.log").open("w") as log:
        # Dagster copies the disposition of SIGINT to SIGTERM; a test runner in the background may ignore SIGINT.
        process = subprocess.Popen(
            installation.command("ui", "--port", str(port)),
            env={**installation.environment, **environment},
            stdout=log,
            stderr=log,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        dev = Dev(installation, f"http://127.0.0.1:{port}")
        try:
            wait_for(lambda: _answers(dev))
            yield dev
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            # Dagster's code server lives until its last run has ended; after a failed test that may be never.
            for pid in processes_of(installation):
                kill(pid)


def _answers(dev: Dev) -> bool:
    try:
        return (
            "nodes"
            in dev.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")[
                "repositoriesOrError"
            ]
        )
    except OSError:
        return False


def processes_of(installation: Installation) -> list[int]:
    """Every process of the installation: Dagster's, runs, workers."""
    wanted = f"\0LORASCOPE_HOME={installation.home}\0".encode()
    folders = (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [int(folder.name) for folder in folders if wanted in b"\0" + _read(folder / "environ")]


def _words(pid: int) -> bytes:
    return _read(Path(f"/proc/{pid}/cmdline"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
