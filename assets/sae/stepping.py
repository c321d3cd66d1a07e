"""How the loop takes a step: on a CPU step by step (sparse), on a GPU as a CUDA graph that the host only starts.

Both change the same weights, moments and counts in place, and tell what came of it when they are asked.
Shapes: B tokens, D components that enter, F latents.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch

from assets.sae.adam import Moments, descend
from assets.sae.backward import Backward
from assets.sae.batchtopk import InputScale, Weights, floor_of
from assets.sae.config import SaeConfig
from assets.sae.constants import Constants
from assets.sae.recording import recorded
from assets.sae.revival import Idle
from assets.sae.selection import lowered
from assets.sae.sparse_step import SparseStep
from assets.sae.static_encode import Encoded, encode
from assets.sae.static_selection import Selection, choose, most_above
from assets.sae.static_step import static_step
from assets.sae.threshold import DECAY, moving_threshold

STEPS_UNTIL_ASKED = 100
"""While latents are dead, the host asks which are after so many steps, or after half of `dead_after_tokens`."""
FEWEST_IDLE = 64
"""Dead latents that a step has places for, or 4, 16, ... times as many: each number of places is a graph of its own."""


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
class Totals:
    """What the steps came to since they were last asked for."""

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
            Diverged: at this step or, on a GPU, when asked for the totals.
        """
        ...

    def totals(self) -> Totals:
        """Of the steps since they were last asked for."""
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

    def totals(self) -> Totals:
        """See `Stepping`."""
        fvu_sum, self._fvu_sum = self._fvu_sum, 0.0
        return Totals(fvu_sum, self._auxiliary, int(self._dead_F.sum()), self._threshold)

    def _descend(self, backward: Backward, rate: float) -> None:
        W_enc_FD, b_enc_F, W_dec_FD, b_dec_D = self._trained.weights.tensors()
        descend((W_dec_FD, b_dec_D), backward.decoder(), self._trained.moments[2:], rate)
        if self._config.decoder == "unit":
            W_dec_FD /= W_dec_FD.norm(dim=1, keepdim=True)
        descend((W_enc_FD, b_enc_F), backward.encoder(), self._trained.moments[:2], rate)


@dataclass
class _Room:
    """What a GPU keeps for batches of one size."""

    batch_BD: torch.Tensor
    constants: Constants
    encode: Callable[[torch.Tensor], Encoded]
    finish: dict[tuple[Selection, int], Callable[[Encoded], None]] = field(default_factory=dict)
    """By selection, and places for dead latents."""


class GraphedStepping:
    """Steps of one size are recorded once and repeated; the host asks no more than how many scores exceed a bound."""

    def __init__(
        self, config: SaeConfig, trained: Trained, scale: InputScale, threshold: float | None, per_token: bool
    ) -> None:
        self._config, self._trained, self._scale, self._per_token = config, trained, scale, per_token
        like = trained.weights.b_dec_D
        self._rate, self._fvu_sum, self._auxiliary = (like.new_zeros(()) for _ in range(3))
        self._dead = torch.zeros((), dtype=torch.int64, device=like.device)
        self._levels = like.new_tensor([math.nan if threshold is None else threshold, math.nan])
        """The moving threshold, and the smallest score selected in the last batch."""
        self._pace = like.new_tensor([1 - DECAY, 1.0])
        self._rooms: dict[int, _Room] = {}
        self._sure_for = 0
        """Tokens until the device is asked again which latents are dead."""
        self._idle = 0
        """Places for dead latents; 0: none is revived."""

    def step(self, batch_BD: torch.Tensor, rate: float) -> None:
        """See `Stepping`."""
        rows = len(batch_BD)
        if rows not in self._rooms:
            constants = Constants.of(rows, len(self._trained.silent_F), batch_BD.device)
            self._rooms[rows] = _Room(torch.empty_like(batch_BD), constants, recorded(self._encode))
        room = self._rooms[rows]
        self._look_for_dead(rows)
        self._rate.fill_(rate)
        encoded = room.encode(room.batch_BD.copy_(batch_BD))
        way = self._selection(encoded, self._config.k * rows), self._idle
        if way not in room.finish:
            room.finish[way] = recorded(partial(self._finish, *way))
        room.finish[way](encoded)

    def totals(self) -> Totals:
        """See `Stepping`."""
        fvu_sum, auxiliary, threshold = torch.stack([self._fvu_sum, self._auxiliary, self._levels[0]]).tolist()
        if not math.isfinite(fvu_sum):
            raise Diverged
        self._fvu_sum.zero_()
        return Totals(fvu_sum, auxiliary, int(self._dead), None if math.isnan(threshold) else threshold)

    def _look_for_dead(self, rows: int) -> None:
        if self._sure_for <= 0:
            silent_F, dead_after = self._trained.silent_F, self._config.dead_after_tokens
            ahead = min(STEPS_UNTIL_ASKED * rows, max(rows, dead_after // 2))
            longest, soon = torch.stack([silent_F.max(), (silent_F > dead_after - ahead).sum()]).tolist()
            some_dead = longest >= dead_after and self._config.auxiliary != "none"
            self._idle = idle_room(soon, len(silent_F)) if some_dead else 0
            self._sure_for = ahead if longest >= dead_after else dead_after - longest
        self._sure_for -= rows

    def _encode(self, batch_BD: torch.Tensor) -> Encoded:
        bound = None if self._per_token else lowered(self._levels[1])
        return encode(self._config, self._trained.weights, self._scale.apply(batch_BD), bound)

    def _selection(self, encoded: Encoded, count: int) -> Selection:
        above = encoded.scored.above
        if above is None:
            return "rows"
        return "bounded" if count <= int(above.number) <= most_above(count) else "batch"

    def _finish(self, selection: Selection, idle: int, encoded: Encoded) -> None:
        config, trained, weights = self._config, self._trained, self._trained.weights
        rows, silent_F, dead_after = len(encoded.shifted_BD), trained.silent_F, config.dead_after_tokens
        chosen = choose(selection, encoded.scored, config.k, floor_of(config))
        dead_F = silent_F >= dead_after
        revived = Idle.of(dead_F, idle) if idle else None
        constants = self._rooms[rows].constants
        result = static_step(config, weights, self._scale.variance, encoded, chosen, revived, constants)
        descend(weights.tensors(), result.gradients, trained.moments, self._rate)
        if config.decoder == "unit":
            weights.W_dec_FD.div_(weights.W_dec_FD.norm(dim=1, keepdim=True))
        torch.sum(dead_F, dim=0, out=self._dead)
        silent_F.add_(rows).masked_fill_(result.fired_F, 0)
        self._fvu_sum.add_(result.fvu)
        self._auxiliary.copy_(result.auxiliary)
        if not self._per_token:
            self._carry(result.smallest)

    def _carry(self, smallest: torch.Tensor) -> None:
        """The threshold moves slowly, the bound at once; a batch that activates nothing has no threshold."""
        moved = torch.lerp(self._levels, smallest, self._pace)
        moved = torch.where(self._levels.isnan(), smallest, moved)
        self._levels.copy_(torch.where(smallest.isinf(), self._levels, moved))


def idle_room(number: int, latents: int) -> int:
    """The fewest places of those a step may have that hold `number` dead latents."""
    room = FEWEST_IDLE
    while room < number:
        room *= 4
    return min(room, latents)
