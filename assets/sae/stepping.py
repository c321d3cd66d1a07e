"""How the loop takes a step: on a CPU step by step (sparse), on a GPU as a CUDA graph that the host only starts.

Both change the same weights, moments and counts in place, and tell what came of it when they are asked.
Shapes: B tokens, D components that enter, F latents.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from assets.sae.adam import Moments, descend
from assets.sae.backward import Backward
from assets.sae.batchtopk import InputScale, Weights
from assets.sae.config import SaeConfig
from assets.sae.sparse_step import SparseStep
from assets.sae.static_step import static_step
from assets.sae.threshold import DECAY, moving_threshold

WARMING_STEPS = 2
"""Steps of one shape that are taken before the next is recorded: libraries allocate what they keep."""
STEPS_UNTIL_ASKED = 100
"""While latents are dead, the device is asked that seldom whether some still are."""


class Diverged(Exception):
    """A loss is not finite."""


@dataclass(frozen=True)
class Trained:
    """What a training changes."""

    weights: Weights
    moments: tuple[Moments, ...]
    """Of each weight tensor."""
    silent_F: torch.Tensor
    """int64: tokens since each latent last fired."""


@dataclass(frozen=True)
class News:
    """What the steps since the last news came to."""

    fvu_sum: float
    auxiliary: float
    """Of the last step."""
    dead: int
    """Latents in the last step."""
    threshold: float | None
    """Moving average of the batch thresholds."""


class Stepping(Protocol):
    """Takes steps."""

    def step(self, batch_BD: torch.Tensor, rate: float) -> None:
        """One batch of raw states.

        Raises:
            Diverged: at this step or, on a GPU, when asked for news.
        """
        ...

    def news(self) -> News:
        """Of the steps since it was last asked for."""
        ...


class SparseStepping:
    """Every step's few numbers are known at once."""

    def __init__(
        self, config: SaeConfig, trained: Trained, scale: InputScale, threshold: float | None, per_token: bool
    ) -> None:
        self._config, self._trained, self._scale, self._threshold = config, trained, scale, threshold
        self._step = SparseStep(config, scale.variance, per_token)
        self._fvu_sum, self._auxiliary, self._dead_F = 0.0, 0.0, torch.zeros(0)

    def step(self, batch_BD: torch.Tensor, rate: float) -> None:
        """See `Stepping`."""
        silent_F = self._trained.silent_F
        with torch.inference_mode():
            self._dead_F = silent_F >= self._config.dead_after_tokens
            result = self._step(self._trained.weights, self._scale.apply(batch_BD), self._dead_F)
            if not math.isfinite(result.fvu):
                raise Diverged
            self._descend(result.backward, rate)
            silent_F += len(batch_BD)
            silent_F.masked_fill_(result.fired_F, 0)
        if self._step.threshold.carried is not None:
            self._threshold = moving_threshold(self._threshold, self._step.threshold.carried)
        self._fvu_sum += result.fvu
        self._auxiliary = result.auxiliary

    def news(self) -> News:
        """See `Stepping`."""
        fvu_sum, self._fvu_sum = self._fvu_sum, 0.0
        return News(fvu_sum, self._auxiliary, int(self._dead_F.sum()), self._threshold)

    def _descend(self, backward: Backward, rate: float) -> None:
        W_enc_FD, b_enc_F, W_dec_FD, b_dec_D = self._trained.weights.tensors()
        descend((W_dec_FD, b_dec_D), backward.decoder(), self._trained.moments[2:], rate)
        if self._config.decoder == "unit":
            W_dec_FD /= W_dec_FD.norm(dim=1, keepdim=True)
        descend((W_enc_FD, b_enc_F), backward.encoder(), self._trained.moments[:2], rate)


class GraphedStepping:
    """Steps of one size are recorded once and repeated; nothing is read back until it is asked for."""

    def __init__(
        self, config: SaeConfig, trained: Trained, scale: InputScale, threshold: float | None, per_token: bool
    ) -> None:
        self._config, self._trained, self._scale, self._per_token = config, trained, scale, per_token
        like = trained.weights.b_dec_D
        self._rate, self._fvu_sum, self._auxiliary = (like.new_zeros(()) for _ in range(3))
        self._dead = torch.zeros((), dtype=torch.int64, device=like.device)
        self._threshold = like.new_full((), math.nan if threshold is None else threshold)
        self._steps: dict[tuple[int, bool], Callable[[torch.Tensor], None]] = {}
        self._sure_for = 0
        """Tokens in which no latent can die, or in which dead ones are reckoned with unasked."""
        self._some_dead = False

    def step(self, batch_BD: torch.Tensor, rate: float) -> None:
        """See `Stepping`."""
        rows = len(batch_BD)
        if self._sure_for <= 0:
            silent = int(self._trained.silent_F.max())
            left = self._config.dead_after_tokens - silent
            self._some_dead = left <= 0
            self._sure_for = STEPS_UNTIL_ASKED * rows if self._some_dead else left
        self._sure_for -= rows
        self._rate.fill_(rate)
        shape = rows, self._some_dead and self._config.auxiliary != "none"
        if shape not in self._steps:
            self._steps[shape] = _repeated(lambda batch_BD: self._take(batch_BD, shape[1]), batch_BD)
        self._steps[shape](batch_BD)

    def news(self) -> News:
        """See `Stepping`."""
        fvu_sum, auxiliary, threshold = torch.stack([self._fvu_sum, self._auxiliary, self._threshold]).tolist()
        if not math.isfinite(fvu_sum):
            raise Diverged
        self._fvu_sum.zero_()
        return News(fvu_sum, auxiliary, int(self._dead), None if math.isnan(threshold) else threshold)

    def _take(self, batch_BD: torch.Tensor, revives: bool) -> None:
        config, trained, weights = self._config, self._trained, self._trained.weights
        dead_F = trained.silent_F >= config.dead_after_tokens
        input_BD = self._scale.apply(batch_BD)
        result = static_step(
            config, weights, self._scale.variance, input_BD, dead_F if revives else None, self._per_token
        )
        descend(weights.tensors(), result.gradients, trained.moments, self._rate)
        if config.decoder == "unit":
            weights.W_dec_FD.div_(weights.W_dec_FD.norm(dim=1, keepdim=True))
        trained.silent_F.add_(len(batch_BD)).masked_fill_(result.fired_F, 0)
        self._fvu_sum.add_(result.fvu)
        self._auxiliary.copy_(result.auxiliary)
        self._dead.copy_(dead_F.sum())
        if not self._per_token:
            self._move_threshold(result.smallest)

    def _move_threshold(self, smallest: torch.Tensor) -> None:
        """As `moving_threshold`; a batch that activates nothing has none."""
        moved = DECAY * self._threshold + (1 - DECAY) * smallest
        moved = torch.where(self._threshold.isnan(), smallest, moved)
        self._threshold.copy_(torch.where(smallest.isinf(), self._threshold, moved))


def _repeated(take: Callable[[torch.Tensor], None], example_BD: torch.Tensor) -> Callable[[torch.Tensor], None]:
    """`take`, its kernels recorded after a few calls and started together from then on."""
    room_BD, graph, done = torch.empty_like(example_BD), torch.cuda.CUDAGraph(), 0

    def repeat(batch_BD: torch.Tensor) -> None:
        nonlocal done
        room_BD.copy_(batch_BD)
        done += 1
        with torch.no_grad():
            if done <= WARMING_STEPS:
                _apart(lambda: take(room_BD))
                return
            if done == WARMING_STEPS + 1:
                with torch.cuda.graph(graph):
                    take(room_BD)
        graph.replay()

    return repeat


def _apart(work: Callable[[], None]) -> None:
    """On a stream of its own, as a recording asks of what precedes it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
