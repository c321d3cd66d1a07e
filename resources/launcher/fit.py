"""Refuses a job that no node of the deployment could hold, before it is launched and with the arithmetic."""

from pkgutil import resolve_name

from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.job import Job
from resources.launcher.deployment import Deployment
from resources.memory import MemoryEstimate, Setup, architecture
from resources.models import ModelConfig
from resources.section import Sections, section_of
from resources.stage import Needs


def estimate(needs: Needs, sections: Sections, compute: ComputeConfig, gpus: int) -> MemoryEstimate | None:
    """What one of so many GPUs will hold; None when it is not modelled, or the job needs none."""
    return _modelled(needs.memory_model, sections, compute, gpus) if gpus else None


def fills(needs: Needs, sections: Sections, compute: ComputeConfig, gpus: int) -> MemoryEstimate | None:
    """What the job will put on the home's disk; None when it is not modelled."""
    return _modelled(needs.disk_model, sections, compute, gpus)


def _modelled(account: str, sections: Sections, compute: ComputeConfig, gpus: int) -> MemoryEstimate | None:
    """None also where the model's sizes are not known here."""
    sizes = architecture(section_of(sections, ModelConfig)) if account else None
    return None if sizes is None else resolve_name(account)(Setup(sections, sizes, compute, gpus))


def check_fits(job: Job, deployment: Deployment) -> None:
    """Refuse what no waiting would make possible.

    Raises:
        BadInput: when nodes have no GPUs, or one GPU not so much memory.
    """
    if job.gpus > deployment.gpus:
        raise BadInput(
            f"{job.asset} needs GPUs, up to {job.gpus}, and a node of this deployment has {deployment.gpus}: "
            f"set compute.profile to cpu, or describe a node that has them in compute.yaml"
        )
    if job.memory is not None:
        job.memory.check(job.asset, deployment.gpu_gib)
