"""Free continuations under edits: every row of a batch decodes under its own edit, greedily or with its own noise.

The prompts are read once without edits up to their last token; edits act from that token on. A row's text depends on
its prompt, its edit and its noise, never on the rows beside it (to rounding).
Shapes: N rows, P prompts, L tokens read so far, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from assets.ablation.adapted import AdaptedModel
from assets.ablation.edits import Edit
from resources.errors import BadInput


@dataclass(frozen=True)
class Row:
    """One continuation to make."""

    prompt: np.ndarray
    """Token ids, through the one that predicts the first new token; at least 2."""
    edit: Edit | None
    noise_seed: int | None
    """Seed of the sampling noise; rows with the same seed draw alike under every edit. None: greedy."""


@torch.inference_mode()
def continue_rows(
    model: AdaptedModel, rows: Sequence[Row], *, max_new_tokens: int, temperature: float, ends: frozenset[int]
) -> list[list[int]]:
    """New token ids of each row, the end token included where one came.

    Raises:
        BadInput: when the logits of a row are not finite.
    """
    decoding = _Decoding(model, rows, temperature)
    for _ in range(max_new_tokens):
        if not decoding.step(ends):
            break
    return decoding.new_tokens


class _Decoding:
    """The rows that still go on, their cache and their mask."""

    def __init__(self, model: AdaptedModel, rows: Sequence[Row], temperature: float) -> None:
        self.model, self.rows, self.temperature = model, rows, temperature
        self.new_tokens: list[list[int]] = [[] for _ in rows]
        self.active = list(range(len(rows)))
        self.noise = {seed: torch.Generator().manual_seed(seed) for seed in _seeds(rows)}
        self.prepared = model.prepare(self._edits())
        self.cache, self.mask_NL = _read_prompts(model, [row.prompt[:-1] for row in rows])
        self.last_N = torch.tensor([int(row.prompt[-1]) for row in rows], device=model.device)

    def step(self, ends: frozenset[int]) -> bool:
        """One token for each active row; False when all have ended."""
        logits_NV = self._logits()
        drawn = self._choose(logits_NV)
        for i, token in zip(self.active, drawn, strict=True):
            self.new_tokens[i].append(token)
        going = [n for n, token in enumerate(drawn) if token not in ends]
        self.last_N = torch.tensor([drawn[n] for n in going], device=self.model.device)
        if len(going) < len(drawn) and going:
            keep_N = torch.tensor(going, device=self.model.device)
            self.cache.batch_select_indices(keep_N)
            self.mask_NL = self.mask_NL[keep_N]
            self.active = [self.active[n] for n in going]
            self.prepared = self.model.prepare(self._edits())
        return bool(going)

    def _edits(self) -> list[Edit]:
        return [self.rows[i].edit or _NOTHING for i in self.active]

    def _logits(self) -> torch.Tensor:
        position_N1 = self.mask_NL.sum(1, keepdim=True)
        self.mask_NL = torch.nn.functional.pad(self.mask_NL, (0, 1), value=1)
        with self.model.editing(self.prepared):
            found = self.model.base(
                input_ids=self.last_N[:, None],
                attention_mask=self.mask_NL,
                position_ids=position_N1,
                past_key_values=self.cache,
                use_cache=True,
            )
        logits_NV = found.logits[:, -1].float().cpu()
        if not bool(torch.isfinite(logits_NV).all()):
            row = int((~torch.isfinite(logits_NV)).any(1).nonzero()[0])
            name = self._edits()[row].name
            raise BadInput(f"the logits are not finite when continuing under {name}: use a smaller factor")
        return logits_NV

    def _choose(self, logits_NV: torch.Tensor) -> list[int]:
        """The largest logit, after Gumbel noise for sampled rows (which samples from the softmax at `temperature`)."""
        rows = [self.rows[i] for i in self.active]
        gumbel = {seed: self._gumbel(seed, logits_NV.shape[1]) for seed in _seeds(rows)}
        for logits_V, row in zip(logits_NV, rows, strict=True):
            if row.noise_seed is not None:
                logits_V.div_(self.temperature).add_(gumbel[row.noise_seed])
        return logits_NV.argmax(1).tolist()

    def _gumbel(self, seed: int, size: int) -> torch.Tensor:
        uniform_V = torch.rand(size, generator=self.noise[seed]).clamp_(min=torch.finfo(torch.float32).tiny)
        return -(-uniform_V.log()).log()


_NOTHING = Edit("no edit", {})


def _seeds(rows: Iterable[Row]) -> list[int]:
    """Of the sampled rows, each once."""
    return list(dict.fromkeys(row.noise_seed for row in rows if row.noise_seed is not None))


def _read_prompts(model: AdaptedModel, prompts: Sequence[np.ndarray]) -> tuple[DynamicCache, torch.Tensor]:
    """The cache and mask of all rows; equal prompts are read once. Short ones are padded on the left."""
    different = {prompt.tobytes(): prompt for prompt in prompts}
    place = {key: p for p, key in enumerate(different)}
    longest = max(len(prompt) for prompt in prompts)
    ids_PL = torch.zeros(len(different), longest, dtype=torch.long)
    mask_PL = torch.zeros(len(different), longest, dtype=torch.long)
    for p, prompt in enumerate(different.values()):
        ids_PL[p, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask_PL[p, longest - len(prompt) :] = 1
    ids_PL, mask_PL = ids_PL.to(model.device), mask_PL.to(model.device)
    cache = DynamicCache(config=model.base.config)
    position_PL = (mask_PL.cumsum(1) - 1).clamp(min=0)
    with model.editing({}):
        model.base.model(
            input_ids=ids_PL, attention_mask=mask_PL, position_ids=position_PL, past_key_values=cache, use_cache=True
        )
    index_N = torch.tensor([place[prompt.tobytes()] for prompt in prompts], device=model.device)
    cache.batch_select_indices(index_N)
    return cache, mask_PL[index_N]
