"""The run directory: every fact about one job as a file, so that any process can pick it up where another fell."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from resources.job import Job, JobFailure, JobResult
from resources.whole import write_whole

Model = TypeVar("Model", bound=BaseModel)

RESULT = "result.json"
FAILURE = "failure.json"
STOP = "stop"
JOB = "job.json"


@dataclass(frozen=True)
class RunDir:
    """The folder of one job's attempts."""

    path: Path

    @property
    def messages(self) -> Path:
        """Pipes messages, one JSON per line, appended by rank 0."""
        return self.path / "messages.jsonl"

    @property
    def stdout(self) -> Path:
        """Raw standard output of all ranks."""
        return self.path / "stdout.log"

    @property
    def stderr(self) -> Path:
        """Raw standard error of all ranks."""
        return self.path / "stderr.log"

    @property
    def script(self) -> Path:
        """What the node runs; of a job of this machine, it can be run by hand (without a lease on its GPUs)."""
        return self.path / "job.sh"

    @property
    def rc(self) -> Path:
        """Exit code, written when no process of the job is left."""
        return self.path / "rc"

    @property
    def stop(self) -> Path:
        """Exists once the job was asked from outside to save and stop."""
        return self.path / STOP

    def prepare(self, job: Job) -> None:
        """An empty run directory for a first attempt."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        write_whole(self.path / JOB, job.model_dump_json(indent=1))

    def again(self) -> None:
        """Ready for another attempt of the same job: outcomes go, messages and logs stay."""
        for name in ("rc", "handle", STOP, RESULT, FAILURE):
            (self.path / name).unlink(missing_ok=True)
        for file in self.path.glob("rank-*"):
            file.unlink()

    def job(self) -> Job | None:
        """The job that was submitted here, if any."""
        return _read(self.path / JOB, Job)

    def result(self) -> JobResult | None:
        """What rank 0 left behind when everything was done; None when missing or damaged."""
        return _read(self.path / RESULT, JobResult)

    def failure(self) -> JobFailure | None:
        """What the first failing rank left behind."""
        return _read(self.path / FAILURE, JobFailure)

    def exit_code(self) -> int | None:
        """The job's exit code, once it has ended."""
        try:
            return int(self.rc.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def handle(self) -> str | None:
        """The back end's name for the job submitted here."""
        try:
            return str(json.loads((self.path / "handle").read_text()))
        except (FileNotFoundError, ValueError):
            return None

    def keep_handle(self, handle: str) -> None:
        """Remember the handle for a process that comes after this one."""
        write_whole(self.path / "handle", json.dumps(handle))


def _read(path: Path, model: type[Model]) -> Model | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
