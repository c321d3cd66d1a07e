"""Refuses a job that no node of the deployment could hold, before it is launched and with the arithmetic."""

import importlib

from resources.errors import BadInput
from resources.job import Job
from resources.launcher.deployment import Deployment
from resources.memory import MemoryEstimate


def estimate(job: Job) -> MemoryEstimate | None:
    """What one rank will hold; None when it is not modelled, or needs no GPU."""
    if not job.gpus or not job.memory_model:
        return None
    module, _, name = job.memory_model.partition(":")
    return getattr(importlib.import_module(module), name)(job.sections, job.compute, job.gpus * job.nodes)


def check_fits(job: Job, deployment: Deployment) -> None:
    """Refuse what no waiting would make possible.

    Raises:
        BadInput: when no node has so many GPUs, or one GPU not so much memory.
    """
    if job.gpus > deployment.gpus:
        raise BadInput(
            f"{job.asset} needs {job.gpus} GPUs and a node of this deployment has {deployment.gpus}: "
            f"set compute.profile to cpu, or describe a node that has them in compute.yaml"
        )
    found = estimate(job)
    if found is not None:
        found.check(job.asset, deployment.gpu_memory_gib)
