"""How many GPUs, processes and threads a stage gets on a deployment: one answer for run and plan."""

from dataclasses import dataclass

from resources.compute import ComputeConfig
from resources.launcher.deployment import Deployment
from resources.stage import Needs

WAITING_CORES = 4
"""Of a stage that asks paid models: it waits for hours, and with all cores of a node it would keep its GPUs idle."""


@dataclass(frozen=True)
class Shape:
    """What a job asks of each node, and how it divides it."""

    gpus: int
    processes: int
    threads: int
    """Per process."""


def shape(needs: Needs, compute: ComputeConfig, deployment: Deployment) -> Shape:
    """One process per GPU, or per CPU worker of a parallel stage; a stage that is not parallel has all cores, or few.

    On a node with fewer GPUs than the stage can use it gets those there are; without any, it asks for all in vain.
    A CPU worker of a parallel stage always has one thread, so that its sums do not depend on how many workers share.
    """
    if compute.profile == "cpu" or needs.gpus == 0:
        if needs.parallel:
            return Shape(0, compute.processes, 1)
        return Shape(0, 1, min(deployment.cpus, WAITING_CORES) if needs.cost_model else deployment.cpus)
    gpus = min(needs.gpus, deployment.gpus or needs.gpus)
    share = max(1, deployment.cpus // max(gpus, deployment.gpus))
    processes = gpus if needs.parallel else 1
    return Shape(gpus, processes, share * gpus // processes)
