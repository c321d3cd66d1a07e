"""How sure a score is: Wilson intervals, exact McNemar between arms, recovery with a question-paired bootstrap.

No normal approximation of single counts: AIME has 30 questions (Bowyer et al., 2503.01747). With several samples per
question the questions are the units, not the answers (Miller, 2411.00640).
Shapes: Q questions, R resamples.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resources.intervals import Z95, difference, t95, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
"""Coverage of every interval in this room."""
NOISE = 1e-9
"""Below this a mean of answers is 0: thirds of a question do not add up exactly."""
_CHUNK = 1000


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; None where the data do not bound it."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """Two arms on the same questions."""

    only_first: int
    only_second: int
    p_value: float | None
    """Exact McNemar; None with several samples per question, where an answer is no longer right or wrong."""
    difference: Estimate
    """Second minus first."""


def share_of(correct: int, total: int) -> Estimate:
    """k/n with its Wilson interval."""
    return Estimate(correct / total, *wilson(correct, total))


def clustered_mean(right_Q: "NDArray[np.float64]") -> Estimate:
    """avg@k: mean of the questions' own means, with Wilson's interval of as many answers as leave it as uncertain.

    From the spread between questions (Korn and Graubard 1998): near 0 and 1 a t interval of 30 covers 86 %, not 95.
    """
    mean, questions = float(right_Q.mean()), len(right_Q)
    if questions < 2:
        return Estimate(mean, 0.0, 1.0)
    answers = float(questions)  # equal questions have no spread, which is no certainty: as if each was asked once
    if right_Q.std() > NOISE:
        answers *= mean * (1 - mean) / float(right_Q.var(ddof=1)) * (Z95 / t95(questions)) ** 2
    return Estimate(mean, *wilson(mean * answers, answers))


def score_estimate(right_Q: "NDArray[np.float64]", samples: int) -> Estimate:
    """The score of one arm: Wilson for one sample per question, question-clustered for more."""
    return share_of(round(float(right_Q.sum())), len(right_Q)) if samples == 1 else clustered_mean(right_Q)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p: the discordant questions are a fair coin if the arms are equally good."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant).pvalue)


def paired(
    first_Q: "NDArray[np.float64]", second_Q: "NDArray[np.float64]", samples: int, resamples: int, seed: int
) -> Paired:
    """Two arms compared on the questions they share."""
    only_first, only_second = int((first_Q > second_Q).sum()), int((second_Q > first_Q).sum())
    gain_R = resampled_means(second_Q - first_Q, resamples, seed)
    low, high = _percentiles(gain_R)
    if high - low < NOISE:  # of equal differences, which are no certainty: as many others may be as Wilson leaves
        unseen = wilson(0, len(first_Q))[1]
        low, high = max(-1.0, low - unseen), min(1.0, high + unseen)
    return Paired(
        only_first,
        only_second,
        mcnemar(only_first, only_second) if samples == 1 else None,
        Estimate(float((second_Q - first_Q).mean()), low, high),
    )


def recovery(
    base_Q: "NDArray[np.float64]",
    adapted_Q: "NDArray[np.float64]",
    full_Q: "NDArray[np.float64]",
    resamples: int,
    seed: int,
) -> Estimate | None:
    """Share of the full finetune's gain that the adapter keeps (paper, Table 1); None when there is no gain.

    Questions are resampled together for all arms. Where the full finetune's own gain is not above 0 in at least
    97.5 % of the resamples, the ratio has no bounded interval and its ends are None.
    """
    gain = float((full_Q - base_Q).mean())
    if gain < NOISE:
        return None
    value = float((adapted_Q - base_Q).mean()) / gain
    kept_R = resampled_means(adapted_Q - base_Q, resamples, seed)
    gain_R = resampled_means(full_Q - base_Q, resamples, seed)
    if (gain_R < NOISE).mean() > (1 - LEVEL) / 2:
        return Estimate(value, None, None)
    positive = gain_R >= NOISE
    low, high = _percentiles(kept_R[positive] / gain_R[positive])
    if high - low < NOISE and 0 <= value <= 1:  # the adapter keeps all of the questions gained, or none
        gained = int((np.abs(full_Q - base_Q) > NOISE).sum())
        low, high = wilson(value * gained, gained)
    return Estimate(value, low, high)


def resampled_means(values_Q: "NDArray[np.float64]", resamples: int, seed: int) -> "NDArray[np.float64]":
    """Means over questions drawn with replacement, [R]; equal seeds draw equal questions."""
    rng = np.random.default_rng(seed)
    parts = [
        values_Q[rng.integers(0, len(values_Q), (min(_CHUNK, resamples - start), len(values_Q)))].mean(1)
        for start in range(0, resamples, _CHUNK)
    ]
    return np.concatenate(parts)


def consistent(ours: tuple[int, int], theirs: tuple[int, int]) -> bool:
    """Whether two counts (k, n) may be one rate: 0 lies in Newcombe's interval of their difference (from Wilson's)."""
    a, b = share_of(*ours), share_of(*theirs)
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    low, high = difference((a.value, a.low, a.high), (b.value, b.low, b.high))
    return low <= 0 <= high


def _percentiles(values_R: "NDArray[np.float64]") -> tuple[float, float]:
    low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
