"""Many processes, one training: whole replicas for the adapter, sharded weights for the full finetune.

A process takes part when torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK) says so; alone it needs none of it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Protocol

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from resources.ranks import Rank

if TYPE_CHECKING:
    from assets.adapter.objective import RolloutLoss


@dataclass(frozen=True)
class Processes:
    """This process among its fellows."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def summed(self, value: float) -> float:
        """The sum of every process's value, in double precision."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.item()

    def wait(self) -> None:
        """Until every process has come here."""
        if self.count > 1:
            dist.barrier()


BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
"""How processes talk, by the type of their device."""
PATIENCE = timedelta(hours=2)
"""For the slowest process; NCCL's 10 minutes end a job whose first process writes 65 GB for all at below 110 MB/s."""


def check_group(rank: int, count: int, device: str) -> None:
    """Make sure that the process group is the one that was asked for.

    Accelerate, for one, quietly trains replicas on a CPU that was asked for shards: better to end than to be wrong.

    Raises:
        RuntimeError: with both.
    """
    found = (dist.get_backend(), dist.get_rank(), dist.get_world_size())
    if found != (BACKENDS[device], rank, count):
        raise RuntimeError(
            f"process {rank} of {count} over {BACKENDS[device]} was asked for; "
            f"this is process {found[1]} of {found[2]} over {found[0]}"
        )


@contextmanager
def joined(device: Literal["cpu", "cuda"], *, needs_group: bool) -> Iterator[Processes]:
    """The processes of this job; `needs_group`: even a single one forms a process group (sharding asks for it)."""
    here = Rank.here()
    rank, count, place = here.index, here.world, torch.device(here.device(device))
    if device == "cuda":
        torch.cuda.set_device(place)
    opens = (count > 1 or needs_group) and not dist.is_initialized()
    if opens:
        backend = BACKENDS[device]
        store = dist.HashStore() if count == 1 else None  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, timeout=PATIENCE, rank=rank, world_size=count, store=store)
    if count > 1 or needs_group:
        check_group(rank, count, device)
    try:
        yield Processes(rank, count, place)
    except BaseException:
        # NCCL's end is a collective call: a process that failed alone would wait in it, and tell nobody why.
        if opens and count == 1:
            dist.destroy_process_group()
        raise
    if opens:
        dist.destroy_process_group()


class Strategy(Protocol):
    """How gradients of all processes come together."""

    loss_factor: float
    """What a process multiplies its loss by before the backward pass."""
    skips_nothing: bool
    """Whether a process must compute as many passes as the others."""
    num_shards: int
    """Files of one checkpoint."""

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make every gradient the sum over processes."""


class Replicas:
    """Every process holds all trainable weights; one flat all-reduce per step (an adapter's gradients are small)."""

    loss_factor = 1.0
    skips_nothing = False
    num_shards = 1

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Flatten, add up, write back; a process without rollouts in this step adds zeros."""
        if self._processes.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(summed.view_as(grad))


class FullySharded:
    """FSDP2: every layer's weights, gradients and optimiser state are divided among the processes."""

    skips_nothing = True

    def __init__(self, processes: Processes) -> None:
        self.loss_factor = float(processes.count)  # FSDP2 averages gradients; the loss is a sum
        self.num_shards = processes.count
        self._processes = processes

    def shard(self, objective: "RolloutLoss", precision: torch.dtype) -> None:
        """Divide the weights as float32 masters; gather and compute in `precision`, add gradients in float32.

        Each layer moves to this process's device before it is divided, so the device never holds the whole model.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(self._processes.device.type, (self._processes.count,))
        policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
        for layer in objective.base.model.layers:
            fully_shard(layer.float(), mesh=mesh, mp_policy=policy)
        fully_shard(objective.float(), mesh=mesh, mp_policy=policy)
        whole = [name for name, weight in objective.named_parameters() if not isinstance(weight, DTensor)]
        if whole or mesh.size() != self._processes.count:
            raise RuntimeError(f"{len(whole)} weights are not divided among {self._processes.count}, first {whole[:1]}")

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Nothing: the backward pass has scattered the sums already."""


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
