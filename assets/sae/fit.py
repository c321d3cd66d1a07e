"""The training loop: batches in, weights out, with a checkpoint from which a killed run goes on bit for bit.

Shapes: B tokens, D components that enter, F latents.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from assets.sae.adam import Moments
from assets.sae.batchtopk import InputScale, Weights, learning_rate, measure_scale, start_weights
from assets.sae.config import SAMPLE_TOKENS, SaeConfig
from assets.sae.shuffle import Order
from assets.sae.stepping import Diverged, GraphedStepping, SparseStepping, Stepping, Totals, Trained
from resources.errors import BadInput, Interrupted
from resources.parts import noted
from resources.progress import Progress
from resources.shards import Shards

CURVE_POINTS = 200
"""Points of the loss curve at most."""
_STATE = "state"


@dataclass
class Counters:
    """Everything a checkpoint holds beside tensors."""

    step: int = 0
    """Steps done."""
    threshold: float | None = None
    """Moving average of the batch thresholds."""
    fvu_sum: float = 0.0
    """Over the steps since the last point of the curve."""
    fvu_steps: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    """step, fvu, auxiliary, dead, threshold, learning_rate."""


@dataclass(frozen=True)
class Fitted:
    """A trained dictionary."""

    weights: Weights
    scale: InputScale
    silent_F: torch.Tensor
    """int64: training tokens since each latent last fired."""
    counters: Counters
    tokens_per_second: float
    """Of the steps done in this process."""


class Fit:
    """One training. `run` may be called once."""

    def __init__(self, config: SaeConfig, order: Order, latents: int, device: str, per_token: bool = False) -> None:
        """`per_token`: TopK, k latents per token, instead of BatchTopK.

        Raises:
            BadInput: when there are fewer training tokens than one batch, or k is no smaller than the width.
        """
        if config.k >= latents:
            raise BadInput(f"sae.k is {config.k} but the dictionary has {latents} latents: lower k or raise expansion")
        if order.rows.num_tokens < config.batch_tokens:
            raise BadInput(
                f"{order.rows.num_tokens} training tokens are fewer than sae.batch_tokens = {config.batch_tokens}: "
                f"capture more rollouts or lower it"
            )
        self._config, self._order, self._device, self._per_token = config, order, device, per_token
        self.steps = max(1, math.ceil(config.epochs * order.batches_per_epoch))
        sample_BD = torch.from_numpy(order.sample(SAMPLE_TOKENS)).to(device).float()
        if not bool(torch.isfinite(sample_BD).all()):
            raise BadInput(not_finite(order.rows.shards))
        self._scale = measure_scale(sample_BD, config.input_scale)
        weights = start_weights(config, self._scale.apply(sample_BD), latents)
        self._trained = Trained(
            weights,
            tuple(Moments.of(tensor) for tensor in weights.tensors()),
            torch.zeros(latents, dtype=torch.int64, device=device),
        )
        self._counters = Counters()

    def run(self, progress: Progress, what: str, checkpoint: Path | None = None) -> Fitted:
        """Train from the checkpoint, if there is one, to the end; save one every `checkpoint_steps`.

        Raises:
            BadInput: when states are not finite or the training diverges.
            Interrupted: when the walltime is nearly over; the state is saved.
        """
        if checkpoint is not None and checkpoint.is_file():
            self._load(checkpoint)
            progress.say(f"{what}: going on from step {self._counters.step}")
        kind = GraphedStepping if torch.device(self._device).type == "cuda" else SparseStepping
        threshold = self._counters.threshold
        self._stepping: Stepping = kind(self._config, self._trained, self._scale, threshold, self._per_token)
        began, first, tokens = time.monotonic(), self._counters.step, 0
        for batch_BD in self._order.batches(first, self.steps, self._device):
            self._train_on(batch_BD)
            tokens += len(batch_BD)
            done = self._counters.step
            last = self._counters.curve[-1] if self._counters.curve else {}
            progress.step(what, done, self.steps, {name: last[name] for name in last if name != "step"})
            if checkpoint is not None and done < self.steps:
                self._save_on_the_way(checkpoint, progress)
        if checkpoint is not None and self._counters.step > first:
            self._save(checkpoint)
        self._count()
        seconds = time.monotonic() - began
        return Fitted(
            self._trained.weights,
            self._scale,
            self._trained.silent_F,
            self._counters,
            tokens / seconds if tokens else 0.0,
        )

    def _save_on_the_way(self, checkpoint: Path, progress: Progress) -> None:
        stopping, done = progress.stopping, self._counters.step
        if stopping or done % self._config.checkpoint_steps == 0:
            self._save(checkpoint)
        if stopping:
            raise Interrupted(f"saved after step {done} of {self.steps}")

    def _train_on(self, batch_BD: torch.Tensor) -> None:
        counters = self._counters
        rate = learning_rate(self._config, counters.step, self.steps)
        with self._explained():
            self._stepping.step(batch_BD, rate)
        counters.step += 1
        counters.fvu_steps += 1
        if counters.step * CURVE_POINTS // self.steps > (counters.step - 1) * CURVE_POINTS // self.steps:
            self._add_point(rate)

    def _count(self) -> Totals:
        with self._explained():
            totals = self._stepping.totals()
        self._counters.fvu_sum += totals.fvu_sum
        self._counters.threshold = totals.threshold
        return totals

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Diverged as error:
            raise BadInput(not_finite(self._order.rows.shards)) from error

    def _add_point(self, rate: float) -> None:
        totals, counters = self._count(), self._counters
        counters.curve.append(
            {
                "step": counters.step,
                "fvu": counters.fvu_sum / counters.fvu_steps,
                "auxiliary": totals.auxiliary,
                "dead": totals.dead,
                "threshold": counters.threshold or 0.0,
                "learning_rate": rate,
            }
        )
        counters.fvu_sum, counters.fvu_steps = 0.0, 0

    def _tensors(self) -> dict[str, torch.Tensor]:
        trained = self._trained
        named = {"silent": trained.silent_F}
        for i, (tensor, moments) in enumerate(zip(trained.weights.tensors(), trained.moments, strict=True)):
            named |= {f"weight.{i}": tensor, f"mean.{i}": moments.mean, f"square.{i}": moments.square}
        return named

    def _save(self, path: Path) -> None:
        self._count()
        tensors = {name: tensor.cpu() for name, tensor in self._tensors().items()}
        with noted(path) as partial:
            save_file(tensors, partial, metadata={_STATE: json.dumps(asdict(self._counters))})

    def _load(self, path: Path) -> None:
        with safe_open(path, framework="pt", device=self._device) as file:
            self._counters = Counters(**json.loads(file.metadata()[_STATE]))
            for name, tensor in self._tensors().items():
                tensor.copy_(file.get_tensor(name))
        for moments in self._trained.moments:
            moments.steps.fill_(self._counters.step)


def not_finite(shards: Shards) -> str:
    """Why a loss is not finite: the first state that is not, or a training that diverged."""
    for group in range(len(shards.groups)):
        batch = shards.read_row_group(group)
        bad = np.argwhere(~np.isfinite(batch.state_BC))
        if len(bad):
            row, column = bad[0]
            return (
                f"the state of {shards.columns[column]} at rollout {batch.rollout_id_B[row]}, position "
                f"{batch.position_B[row]} is {batch.state_BC[row, column]}: capture the activations again"
            )
    return "the SAE's loss is not finite although every state is: lower sae.learning_rate"
