"""Where jobs go on this installation: `compute.yaml`, chosen per deployment and never by an asset.

For example: {backend: slurm, prefix: [ssh, login-node], options: [--partition=gpu, --account=me], gpus: 8, cpus: 96}
"""

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from resources.errors import BadInput, nearest, one_line, quoted, told
from resources.launcher.devices import memory_gib, present
from resources.launcher.local import LocalLauncher
from resources.launcher.protocol import Launcher
from resources.launcher.slurm import SlurmLauncher
from resources.section import Section
from resources.sources import PROJECT
from resources.strict_yaml import Empty, read_yaml


class Deployment(Section):
    """What `compute.yaml` says; without one, this machine."""

    backend: Literal["local", "slurm"] = "local"
    """`local`: processes of this machine. `slurm`: sbatch, here or on a login node."""
    gpus: int = Field(default_factory=present, ge=0, le=1024)
    """GPUs of one node; by default those this machine has, or CUDA_VISIBLE_DEVICES shows."""
    cpus: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, le=4096)
    """CPU cores of one node; by default those this process may use (a container, `taskset` or Slurm can give fewer)."""
    gpu_memory_gib: float | None = Field(default=None, gt=0)
    """What one GPU offers to a process, GiB; null: as this machine's, or an H200's 139 where it has none."""
    lease_folder: Path = Path("/tmp/lorascope-gpus")  # noqa: S108 (not in TMPDIR, which each user may have alone)
    """Where `local` locks GPUs; one folder per machine, for all its users."""
    gpu_type: str = "h200"
    """The node's GPUs as Slurm names them; empty when it gives them no type."""
    prefix: tuple[str, ...] = ()
    """Put before every Slurm command: [ssh, login-node] when Slurm is not on this machine."""
    options: tuple[str, ...] = ()
    """Further arguments of sbatch, such as --partition=gpu or --account=me."""
    python: str = sys.executable
    """Interpreter with Lorascope on the node that runs the job."""
    cpu_jobs: Literal["local"] | None = None
    """`local`: jobs that ask for no GPU run on this machine instead of waiting in the queue; null: they are queued."""
    cpu_options: tuple[str, ...] | None = None
    """Instead of `options` for queued jobs that ask for no GPU, such as [--partition=cpu]; null: the same."""

    @cached_property
    def gpu_gib(self) -> float:
        """What a job's memory on one GPU is held against, GiB; NVIDIA's tool takes up to seconds to say it."""
        return self.gpu_memory_gib or memory_gib()

    def for_gpus(self, gpus: int) -> "Deployment":
        """What holds for a job that asks for so many GPUs."""
        if gpus or self.backend == "local":
            return self
        if self.cpu_jobs == "local":
            return Deployment(gpus=0, lease_folder=self.lease_folder)
        return self if self.cpu_options is None else self.model_copy(update={"options": self.cpu_options})

    def launcher(self) -> Launcher:
        """The back end."""
        if self.backend == "slurm":
            return SlurmLauncher(self.python, self.prefix, self.gpu_type, self.options)
        return LocalLauncher(self.gpus, self.lease_folder)


def load_deployment() -> Deployment:
    """The deployment of `LORASCOPE_COMPUTE`, else of the project's compute.yaml, else this machine.

    Raises:
        BadInput: when the file is missing, no YAML, or says something unknown; says where.
    """
    named = os.environ.get("LORASCOPE_COMPUTE")
    path = Path(named) if named else PROJECT / "compute.yaml"
    if not named and not path.exists():
        return Deployment()
    if not path.is_file():
        raise BadInput(f"LORASCOPE_COMPUTE names {path}, which is no file: correct it, or unset it")
    try:
        document = read_yaml(path)
    except Empty:
        return Deployment()
    try:
        return Deployment.model_validate(document.values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        place = f"{path}:{document.line(first['loc'])}"
        if first["type"] == "extra_forbidden":
            known = list(Deployment.model_fields)
            raise BadInput(f"{place}: unknown key {quoted(where)}{nearest(where, known)}") from error
        raise BadInput(f"{place}: {one_line(where)}: {told(first)}") from error
