"""The fixed threshold by which the SAE is used: the exact quantile that lets k latents per calibration token fire.

Shapes: B tokens, D columns, F latents.
"""

from collections.abc import Iterable

import numpy as np
import torch

from assets.sae.batchtopk import Folded
from assets.sae.scores import above
from resources.onednn import linear

DECAY = 0.99
"""Of the moving average of batch thresholds during training (SAELens: learning rate 0.01)."""


def moving_threshold(average: float | None, batch_threshold: float) -> float:
    """The learned threshold after one more batch."""
    return batch_threshold if average is None else DECAY * average + (1 - DECAY) * batch_threshold


def quantile_threshold(folded: Folded, states: Iterable[torch.Tensor], k: int, guess: float) -> float:
    """The score that exactly k x tokens scores of the calibration tokens are greater than, and never below 0.

    A latent fires above its threshold, so the value lies midway between the last score that fires and the next.
    `states` is gone through once or twice; `guess` only saves memory.
    """
    states = list(states)
    wanted = k * sum(len(state_BD) for state_BD in states)
    for bound in (0.8 * max(guess, 0.0), 0.0):
        found = np.concatenate([_scores_above(folded, state_BD, bound) for state_BD in states])
        if len(found) > wanted:
            top = np.partition(found, len(found) - wanted - 1)[len(found) - wanted - 1 :]
            return float((top[0] + top[1:].min()) / 2)
    return 0.0


def _scores_above(folded: Folded, state_BD: torch.Tensor, bound: float) -> np.ndarray:
    scores_BF = linear(state_BD, folded.W_enc_DF.T, folded.b_enc_F)
    scores_BF *= folded.norm_F
    return scores_BF.flatten()[above(scores_BF, bound)].cpu().numpy()
