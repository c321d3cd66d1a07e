"""What crosses the border between the orchestrator and a worker process: one job in, one result out."""

from pathlib import Path

from pydantic import BaseModel, JsonValue

from resources.compute import ComputeConfig
from resources.manifest import Column
from resources.memory import MemoryEstimate
from resources.stage import SAVING_S


class Job(BaseModel, frozen=True, extra="forbid"):
    """One call of one stage, as `job.json` in the run directory."""

    asset: str
    key: str
    call: str
    """`module:function`; its parameters are the sections and inputs by name."""
    sections: dict[str, dict[str, JsonValue]]
    inputs: dict[str, Path]
    """Input asset -> its folder in the store."""
    out: Path
    """Folder to fill; emptied before every attempt."""
    scratch: Path
    """Folder that outlives a killed attempt: checkpoints, finished shards."""
    artifact: str
    """`module:Class` that opens what the call wrote; its table gives the manifest's columns."""
    compute: ComputeConfig
    gpus: int = 0
    processes: int = 1
    """More than one run under torchrun."""
    threads: int = 1
    """CPU threads of one process."""
    minutes: int = 60
    saving_s: int = SAVING_S
    """As the stage's needs say."""
    memory: MemoryEstimate | None = None
    """What one rank will hold, by the room's account; None: no GPU, or not modelled."""


class JobResult(BaseModel, frozen=True, extra="forbid"):
    """What `result.json` holds after success: the only proof that a job succeeded."""

    metrics: dict[str, JsonValue]
    columns: list[Column]
    seconds: float
    device: str
    packages: dict[str, str]
    cost_usd: float = 0.0


class JobFailure(BaseModel, frozen=True, extra="forbid"):
    """What `failure.json` holds when a rank raised: the first failing rank's error."""

    kind: str
    """`bad_input`, `interrupted` or `error`."""
    message: str
    traceback: str
    rank: int
