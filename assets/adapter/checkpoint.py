"""Checkpoints of a running training: safetensors and JSON, written beside and renamed, so none is ever half there.

A run draws nothing at random after its first step (no dropout; the order of rollouts comes from seed and epoch), so
weights, AdamW's moments and the step number are the whole state.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from assets.adapter.parallel import Processes, local_part
from resources.parts import noted
from resources.whole import sync

_STATE = "state.json"
_DIGEST = "sha256"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
CHEAP_S = 10.0
"""Seconds up to which writing one is never put off."""
MOST_SHARE = 0.1
"""Share of a training's time that longer ones may take: the full finetune's have 393 GB, minutes on many disks."""


class Checkpoints:
    """The checkpoints below one folder; only the newest is kept."""

    def __init__(self, folder: Path, processes: Processes, num_shards: int, say: Callable[[str], None]) -> None:
        """`num_shards`: files per checkpoint; 1 when every process holds everything. `say`: a line for the run log."""
        self._folder = folder
        self._processes = processes
        self._num_shards = num_shards
        self._say = say
        self._took_s, self._saved_at = 0.0, time.monotonic()

    def worth_while(self) -> bool:
        """Whether a further one would take a small share of the time since the last; the same in all processes."""
        too_soon = time.monotonic() - self._saved_at < self._took_s / MOST_SHARE
        put_off = self._processes.first and self._took_s > CHEAP_S and too_soon
        return self._processes.summed(float(put_off)) == 0

    def save(
        self,
        curve: list[dict[str, float]],
        parameters: dict[str, torch.nn.Parameter],
        optimiser: torch.optim.Optimizer,
    ) -> None:
        """Keep the state after `len(curve)` steps."""
        began = time.monotonic()
        done = self._folder / f"step-{len(curve):08d}"
        part = done.with_suffix(".part")
        if self._processes.first:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        self._processes.wait()
        if self._processes.rank < self._num_shards:
            tensors = _tensors(parameters, optimiser)
            save_file(tensors, part / self._file, {_DIGEST: _digest_of(tensors)})
            sync(part / self._file)
        self._processes.wait()
        if self._processes.first:
            with noted(part / _STATE) as partial:
                partial.write_text(json.dumps({"shards": self._num_shards, "curve": curve}))
            # One of this name is there when it could not be taken up.
            shutil.rmtree(done, ignore_errors=True)
            part.replace(done)
            for old in self._folder.glob("step-*"):
                if old != done:
                    shutil.rmtree(old)
        self._processes.wait()
        self._saved_at = time.monotonic()
        self._took_s = self._saved_at - began

    def resume(
        self, parameters: dict[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer
    ) -> list[dict[str, float]]:
        """Take up the newest checkpoint; returns its curve, empty when there is none for this number of shards."""
        found = sorted(path for path in self._folder.glob("step-*") if path.suffix != ".part")
        if not found:
            return []
        state, tensors = self._read(found[-1])
        # All processes take it up, or none does.
        if self._processes.summed(float(tensors is None)) > 0:
            if tensors is not None:
                self._say(f"another process cannot use its share of the checkpoint {found[-1]}")
            self._say("the training begins anew")
            return []
        assert tensors is not None
        with torch.no_grad():
            for name, parameter in parameters.items():
                local_part(parameter).copy_(tensors[f"weight/{name}"])
                moments = {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS}
                optimiser.state[parameter] = {
                    moment: tensor.to(parameter.device) if moment == "step" else _like(parameter, tensor)
                    for moment, tensor in moments.items()
                }
        return state["curve"]

    def _read(self, checkpoint: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor] | None]:
        """This process's share; no tensors, with the reason said, when it cannot be used."""
        try:
            state = json.loads((checkpoint / _STATE).read_text())
            if state["shards"] == self._num_shards:
                return state, _load(checkpoint / self._file)
        except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError) as error:
            self._say(f"the checkpoint {checkpoint} is damaged ({error})")
            return {}, None
        self._say(
            f"the checkpoint after step {len(state['curve'])} is divided among {state['shards']} processes and this "
            f"training among {self._num_shards}"
        )
        return state, None

    @property
    def _file(self) -> str:
        return f"shard-{self._processes.rank if self._num_shards > 1 else 0:05d}.safetensors"


def _digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the tensors' bytes; `noted` would read 393 GB back from a disk to have that of the file."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _load(path: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get(_DIGEST) != _digest_of(tensors):
            raise ValueError(f"{path.name} is not what was written")
    return tensors


def _tensors(parameters: dict[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {f"weight/{name}": local_part(parameter) for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{moment}/{name}": local_part(optimiser.state[parameter][moment]) for moment in _MOMENTS}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _like(parameter: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """`local` as this process's part of a tensor laid out as `parameter`."""
    local = local.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return local
    return DTensor.from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
