"""How many GPUs, processes and threads a stage gets on a deployment: one answer for run and plan."""

from dataclasses import dataclass
from pkgutil import resolve_name

from resources.compute import ComputeConfig
from resources.launcher.deployment import Deployment
from resources.section import Sections
from resources.stage import Needs

WAITING_CORES = 4
"""Of a stage that waits for others' answers or files: with all cores of a node it would keep its GPUs idle."""


@dataclass(frozen=True)
class Shape:
    """What a job asks of each node, and how it divides it."""

    gpus: int
    processes: int
    threads: int
    """Per process."""


def shape(needs: Needs, sections: Sections, compute: ComputeConfig, deployment: Deployment) -> Shape:
    """One process per GPU, or per CPU worker of a parallel stage; a stage that is not parallel has all cores, or few.

    A node with fewer GPUs than the stage can use gives it those; of a node without any it asks for all, and is refused.
    A CPU worker of a parallel stage always has one thread, so that its sums do not depend on how many workers share.
    """
    cpus = deployment.for_gpus(0).cpus
    if needs.cost_model or (needs.idle_when and resolve_name(needs.idle_when)(sections)):
        return Shape(0, 1, min(cpus, WAITING_CORES))
    if compute.profile == "cpu" or needs.gpus == 0:
        return Shape(0, compute.processes, 1) if needs.parallel else Shape(0, 1, cpus)
    gpus = min(needs.gpus, deployment.gpus or needs.gpus)
    share = max(1, deployment.cpus // max(gpus, deployment.gpus))
    processes = gpus if needs.parallel else 1
    return Shape(gpus, processes, share * gpus // processes)
