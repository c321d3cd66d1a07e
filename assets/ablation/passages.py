"""The tokens that KL is measured on: rollouts drawn with a seed, cut to their first tokens, and the scored positions.

Shapes: T tokens of a passage, P scored positions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assets.activations.config import Positions
from assets.dataset.artifact import S1kDataset
from resources.errors import BadInput


@dataclass(frozen=True)
class Passage:
    """The beginning of one rollout."""

    rollout_id: int
    ids_T: np.ndarray
    """Token ids."""
    reply_T: np.ndarray
    """bool: the token is the assistant's."""
    scored_P: np.ndarray
    """Positions whose predictions are compared, ascending."""

    @property
    def target_P(self) -> np.ndarray:
        """The token after each scored position; -1 after the last one."""
        following_T = np.append(self.ids_T[1:], -1)
        return following_T[self.scored_P].astype(np.int64)

    @property
    def predicts_reply_T(self) -> np.ndarray:
        """bool: from the token that predicts the assistant's first one on, which is where steering acts."""
        return np.append(self.reply_T[1:], False) | self.reply_T


def draw_rollouts(rollout_ids: Sequence[int], num: int, seed: int) -> list[int]:
    """`num` different rollouts (all, where there are fewer), ascending."""
    known = sorted(int(r) for r in rollout_ids)
    return sorted(random.Random(seed).sample(known, min(num, len(known))))


def open_passages(
    dataset: S1kDataset, *, num_rollouts: int, max_tokens: int, seed: int, positions: Positions
) -> list[Passage]:
    """The drawn rollouts' beginnings.

    Raises:
        BadInput: for a rollout shorter than 2 tokens, or when no position at all would be scored.
    """
    drawn = draw_rollouts(dataset.rollout_ids, num_rollouts, seed)
    passages = [cut(r, dataset.token_ids(r), dataset.loss_mask(r), max_tokens, positions) for r in drawn]
    if not any(len(passage.scored_P) for passage in passages):
        raise BadInput(
            f"no assistant token stands in the first {max_tokens} tokens of any drawn rollout: raise max_tokens"
        )
    return passages


def cut(rollout_id: int, ids: np.ndarray, reply: np.ndarray, max_tokens: int, positions: Positions) -> Passage:
    """One passage.

    Raises:
        BadInput: for a rollout shorter than 2 tokens.
    """
    if len(ids) < 2:
        raise BadInput(f"rollout {rollout_id} has {len(ids)} token(s), KL needs 2 or more: drop it from the dataset")
    ids_T, reply_T = ids[:max_tokens].astype(np.int64), reply[:max_tokens].astype(bool)
    scored_P = np.arange(len(ids_T)) if positions == "all" else np.flatnonzero(reply_T[1:])
    return Passage(rollout_id, ids_T, reply_T, scored_P)
