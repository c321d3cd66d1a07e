"""How sure a score is: Wilson intervals, exact McNemar between arms, intervals of differences and recovered gains.

Neither a normal approximation nor a bootstrap of single counts: AIME has 30 questions (Bowyer et al., 2503.01747).
With several samples per question the questions are the units, not the answers (Miller, 2411.00640).
Shapes: Q questions.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resources.intervals import NOISE, clustered_share, difference, paired_difference, share_of_gain, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    """avg@k: mean of the questions' own means."""
    return Estimate(float(right_Q.mean()), *clustered_share(right_Q.tolist()))


def score_estimate(right_Q: "NDArray[np.float64]", samples: int) -> Estimate:
    """The score of one arm: Wilson for one sample per question, question-clustered for more."""
    return share_of(round(float(right_Q.sum())), len(right_Q)) if samples == 1 else clustered_mean(right_Q)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p: the discordant questions are a fair coin if the arms are equally good."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant).pvalue)


def paired(first_Q: "NDArray[np.float64]", second_Q: "NDArray[np.float64]", samples: int) -> Paired:
    """Two arms compared on the questions they share."""
    only_first, only_second = int((first_Q > second_Q).sum()), int((second_Q > first_Q).sum())
    return Paired(
        only_first,
        only_second,
        mcnemar(only_first, only_second) if samples == 1 else None,
        Estimate(float((second_Q - first_Q).mean()), *paired_difference(first_Q.tolist(), second_Q.tolist())),
    )


def recovery(
    base_Q: "NDArray[np.float64]", adapted_Q: "NDArray[np.float64]", full_Q: "NDArray[np.float64]"
) -> Estimate | None:
    """Share of the full finetune's gain that the adapter keeps (paper, Table 1); None when there is no gain."""
    gain = float((full_Q - base_Q).mean())
    if gain < NOISE:
        return None
    ends = share_of_gain(base_Q.tolist(), adapted_Q.tolist(), full_Q.tolist())
    return Estimate(float((adapted_Q - base_Q).mean()) / gain, *(ends or (None, None)))


def consistent(ours: tuple[int, int], theirs: tuple[int, int]) -> bool:
    """Whether two counts (k, n) may be one rate: 0 lies in Newcombe's interval of their difference (from Wilson's)."""
    low, high = difference(*((correct / total, *wilson(correct, total)) for correct, total in (ours, theirs)))
    return low <= 0 <= high
