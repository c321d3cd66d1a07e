"""Batched decoding with a Transformers model on two cores: drop finished rows, never copy the cache.

`generate` pays for the whole batch until its longest answer ends and copies all keys and values at every step; here a
row that ends leaves the batch, and the cache grows by doubling (bench/generate.py has the ratios).
Shapes: B rows still open, T positions so far (left-padded), V vocabulary, K key/value heads, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows are dropped when at least this share of the batch has ended: each drop copies the rest of the cache once.
_DROP_SHARE = 1 / 8


@dataclass
class Row:
    """One request as token ids, and what has been decoded of it."""

    prompt: list[int]
    max_tokens: int
    stop: frozenset[int]
    temperature: float
    seed: int
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def open(self) -> bool:
        """Whether it still wants tokens."""
        return not self.stopped and len(self.tokens) < self.max_tokens


class RoomyLayer(DynamicLayer):
    """A cache layer with spare room, so that a step writes one position instead of copying all of them."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """No room yet."""
        super().lazy_initialization(key_states, value_states)
        self._room = [key_states[:, :, :0], value_states[:, :, :0]]
        self._length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new positions; returns all keys and values [B, K, T, D] as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self._length = self._length, self._length + key_states.shape[2]
        views: list[torch.Tensor] = []
        for index, new_BKtD in enumerate((key_states, value_states)):
            self._grow(index, new_BKtD)
            self._room[index][:, :, start : self._length] = new_BKtD
            views.append(self._room[index][:, :, : self._length])
        self.keys, self.values = views
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, room included."""
        self._room = [room[indices] for room in self._room]
        self.keys, self.values = (room[:, :, : self._length] for room in self._room)

    def _grow(self, index: int, new_BKtD: torch.Tensor) -> None:
        old = self._room[index]
        if self._length <= old.shape[2]:
            return
        shape = (*new_BKtD.shape[:2], max(2 * old.shape[2], self._length + 64), new_BKtD.shape[3])
        # Zeros, not empty memory: masked positions may meet a NaN otherwise.
        room = new_BKtD.new_zeros(shape)
        room[:, :, : old.shape[2]] = old
        self._room[index] = room


@torch.inference_mode()
def decode(model: "PreTrainedModel", rows: Sequence[Row], pad: int) -> None:
    """Fill `tokens` of every row, greedily or by its own seed; stop tokens are not kept."""
    batch = list(rows)
    ids_BT, mask_BT = _left_padded([row.prompt for row in batch], pad, model.device)
    position_B1 = mask_BT.sum(1, keepdim=True)
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    logits_BV = _step(model, ids_BT, mask_BT.long(), positions_BT, cache)
    generators = [torch.Generator().manual_seed(row.seed) for row in batch]
    while True:
        tokens_B = _pick(logits_BV, batch, generators)
        for row, token in zip(batch, tokens_B.tolist(), strict=True):
            _take(row, token)
        kept = [index for index, row in enumerate(batch) if row.open]
        if not kept:
            return
        if len(batch) - len(kept) >= max(1, _DROP_SHARE * len(batch)):
            keep = torch.tensor(kept, device=model.device)
            cache.batch_select_indices(keep)
            tokens_B, mask_BT, position_B1 = tokens_B[keep], mask_BT[keep], position_B1[keep]
            batch, generators = [batch[i] for i in kept], [generators[i] for i in kept]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(batch), 1)], dim=1)
        logits_BV = _step(model, tokens_B[:, None], mask_BT[:, None, None, :], position_B1, cache)
        position_B1 = position_B1 + 1


def _step(
    model: "PreTrainedModel", ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache
) -> torch.Tensor:
    """Logits of the last position, [B, V]. A 4-D mask of one query is taken as it is: no mask is built per step."""
    out = model(
        ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    return out.logits[:, -1]


def _take(row: Row, token: int) -> None:
    """Append a token, or end the row at a stop token; a row that has ended ignores what the batch still yields."""
    if not row.open:
        return
    if token in row.stop:
        row.stopped = True
    else:
        row.tokens.append(token)


def _pick(logits_BV: torch.Tensor, batch: Sequence[Row], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """The next token of each row, [B]: the largest logit, or a draw from the row's own generator."""
    tokens_B = logits_BV.argmax(-1)
    for index, row in enumerate(batch):
        if row.temperature > 0 and row.open:
            weights_V = (logits_BV[index].float().cpu() / row.temperature).softmax(-1)
            tokens_B[index] = torch.multinomial(weights_V, 1, generator=generators[index])[0]
    return tokens_B


def _left_padded(prompts: Sequence[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (bool), both [B, T]; the prompts end at the same column."""
    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
