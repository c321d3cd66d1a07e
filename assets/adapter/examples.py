"""Rollouts as what one forward pass takes: packed tokens, which of them are predicted, and from where.

Shapes: T tokens of the pass, P predicted tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assets.dataset.artifact import S1kDataset
from resources.errors import BadInput
from resources.packing import Packed, pack


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass."""

    packed: Packed
    row_P: np.ndarray
    """int64: the token before each predicted one, on the packed token axis."""
    target_P: np.ndarray
    """int64: ids of the predicted tokens."""


class Examples:
    """The rollouts of a training, cut to its block size."""

    def __init__(self, dataset: S1kDataset, block_size: int | None) -> None:
        """Cut every rollout.

        Raises:
            BadInput: when no rollout has a token to predict inside the block.
        """
        self._dataset = dataset
        self._block = slice(0, block_size)
        predicted = {r: int(self._mask(r).sum()) for r in dataset}
        self.predicted = {r: tokens for r, tokens in predicted.items() if tokens}
        """Tokens of each rollout that the loss is over, by rollout_id."""
        self.without_loss = [r for r, tokens in predicted.items() if not tokens]
        """Rollouts whose prompt fills the block: there is nothing to learn from them."""
        if not self.predicted:
            raise BadInput(
                f"block_size {block_size} cuts every answer off: no prompt of the {dataset.num_rollouts} rollouts is "
                f"shorter, so there is nothing to train on; set a larger one"
            )
        self.lengths = {r: len(dataset.token_ids(r)[self._block]) for r in self.predicted}
        """Tokens of each rollout that is trained on."""
        self.truncated_tokens = sum(len(dataset.token_ids(r)[block_size:]) for r in dataset) if block_size else 0
        """Tokens beyond the block size, of all rollouts."""

    def _mask(self, r: int) -> np.ndarray:
        mask_T = self._dataset.loss_mask(r)[self._block].copy()
        mask_T[0] = False  # nothing stands before the first token
        return mask_T

    def sizes(self, rollout_ids: Sequence[int]) -> tuple[list[int], int]:
        """The rollouts' lengths, and how many of their tokens are predicted."""
        return [self.lengths[r] for r in rollout_ids], sum(self.predicted[r] for r in rollout_ids)

    def one_pass(self, rollout_ids: Sequence[int]) -> Pass:
        """The rollouts packed in the given order."""
        packed = pack([self._dataset.token_ids(r)[self._block] for r in rollout_ids])
        target_at = np.flatnonzero(np.concatenate([self._mask(r) for r in rollout_ids]))
        return Pass(packed, target_at - 1, packed.input_ids_1T[0, target_at])

    @staticmethod
    def nothing() -> Pass:
        """A pass of one token without loss: what a process computes while others gather weights for theirs."""
        empty = np.zeros(0, np.int64)
        return Pass(pack([np.zeros(1, np.int32)]), empty, empty)
