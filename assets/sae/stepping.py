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
from assets.sae.recording import recorded
from assets.sae.selection import lowered
from assets.sae.sparse_step import SparseStep
from assets.sae.static_selection import Selection, choose, most_above
from assets.sae.static_step import Encoded, encode, static_step
from assets.sae.threshold import moving_threshold

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
    encode: Callable[[torch.Tensor], Encoded]
    finish: dict[tuple[Selection, bool], Callable[[Encoded], None]] = field(default_factory=dict)
    """By selection, and whether latents are revived."""


class GraphedStepping:
    """Steps of one size are recorded once and repeated; the host asks no more than how many scores exceed a bound."""

    def __init__(
        self, config: SaeConfig, trained: Trained, scale: InputScale, threshold: float | None, per_token: bool
    ) -> None:
        self._config, self._trained, self._scale, self._per_token = config, trained, scale, per_token
        like = trained.weights.b_dec_D
        self._rate, self._fvu_sum, self._auxiliary = (like.new_zeros(()) for _ in range(3))
        self._dead = torch.zeros((), dtype=torch.int64, device=like.device)
        self._threshold = like.new_full((), math.nan if threshold is None else threshold)
        self._carried = like.new_full((), math.nan)
        """Smallest score selected in the last batch."""
        self._rooms: dict[int, _Room] = {}
        self._sure_for = 0
        """Tokens in which no latent can die, or in which dead ones are reckoned with unasked."""
        self._some_dead = False

    def step(self, batch_BD: torch.Tensor, rate: float) -> None:
        """See `Stepping`."""
        rows = len(batch_BD)
        if rows not in self._rooms:
            self._rooms[rows] = _Room(torch.empty_like(batch_BD), recorded(self._encode))
        room = self._rooms[rows]
        self._look_for_dead(rows)
        self._rate.fill_(rate)
        encoded = room.encode(room.batch_BD.copy_(batch_BD))
        selection = self._selection(encoded, self._config.k * rows)
        revives = self._some_dead and self._config.auxiliary != "none"
        if (selection, revives) not in room.finish:
            room.finish[selection, revives] = recorded(partial(self._finish, selection, revives))
        room.finish[selection, revives](encoded)

    def totals(self) -> Totals:
        """See `Stepping`."""
        fvu_sum, auxiliary, threshold = torch.stack([self._fvu_sum, self._auxiliary, self._threshold]).tolist()
        if not math.isfinite(fvu_sum):
            raise Diverged
        self._fvu_sum.zero_()
        return Totals(fvu_sum, auxiliary, int(self._dead), None if math.isnan(threshold) else threshold)

    def _look_for_dead(self, rows: int) -> None:
        if self._sure_for <= 0:
            left = self._config.dead_after_tokens - int(self._trained.silent_F.max())
            self._some_dead = left <= 0
            self._sure_for = STEPS_UNTIL_ASKED * rows if self._some_dead else left
        self._sure_for -= rows

    def _encode(self, batch_BD: torch.Tensor) -> Encoded:
        bound = lowered(self._carried).clamp(min=floor_of(self._config))
        return encode(self._config, self._trained.weights, self._scale.apply(batch_BD), bound)

    def _selection(self, encoded: Encoded, count: int) -> Selection:
        if self._per_token:
            return "rows"
        return "bounded" if count <= int(encoded.scored.num_above) <= most_above(count) else "batch"

    def _finish(self, selection: Selection, revives: bool, encoded: Encoded) -> None:
        config, trained, weights = self._config, self._trained, self._trained.weights
        rows = len(encoded.shifted_BD)
        dead_F = trained.silent_F >= config.dead_after_tokens
        chosen = choose(selection, encoded.scored, config.k, floor_of(config))
        result = static_step(config, weights, self._scale.variance, encoded, chosen, dead_F if revives else None)
        descend(weights.tensors(), result.gradients, trained.moments, self._rate)
        if config.decoder == "unit":
            weights.W_dec_FD.div_(weights.W_dec_FD.norm(dim=1, keepdim=True))
        trained.silent_F.add_(rows).masked_fill_(result.fired_F, 0)
        self._fvu_sum.add_(result.fvu)
        self._auxiliary.copy_(result.auxiliary)
        self._dead.copy_(dead_F.sum())
        if not self._per_token:
            self._carry(result.smallest)

    def _carry(self, smallest: torch.Tensor) -> None:
        """A batch that activates nothing has no threshold."""
        none = smallest.isinf()
        moved = moving_threshold(self._threshold, smallest)
        moved = torch.where(self._threshold.isnan(), smallest, moved)
        self._threshold.copy_(torch.where(none, self._threshold, moved))
        self._carried.copy_(torch.where(none, self._carried, smallest))
