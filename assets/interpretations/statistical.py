"""The offline explainer: predicates found on one half of the rollouts, tested on the other, against a null.

It reads no meaning: a rollout's words can be evidence for a predicate, but never an instruction. Class 0 asks that a
specific predicate holds on unseen peaks with a Wilson lower bound of .8, class 1 of .6: stricter than an LLM.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from assets.interpretations.artifact import Predicate
from assets.interpretations.config import InterpretationsConfig
from assets.interpretations.corpus import TOKEN_FAMILIES, Corpus
from assets.interpretations.evidence import HALF_A, HALF_B, Evidence
from assets.interpretations.predicates import Background, find
from resources.intervals import wilson

MONOSEMANTIC = (0.80, 0.85)
"""Least Wilson-low coverage and balanced accuracy of class 0."""
BROAD = (0.60, 0.75)
"""The same for class 1."""
SIGNIFICANT = 0.05
"""Largest share of null sets that may do as well."""
NULL_SPREAD = 0.25
"""How far a null token's frequency rank may lie from the peak's, as a share of the corpus. Much less and every
occurrence of a common token would be replaced by itself."""
SPECIFIC = frozenset({"word", *TOKEN_FAMILIES})
"""Families that name a word; a class, a place or a block alone is broad."""


@dataclass(frozen=True)
class Trial:
    """How a predicate found on one half does on the other, both ways round."""

    covered: int
    total: int
    quiet_share: float
    """Share of quiet tokens (half of them bearing a peak's token, where there are such) on which it is false."""
    found: tuple[Predicate | None, ...]
    """What each half chose."""

    @property
    def coverage(self) -> float:
        """Share of unseen peaks on which the predicate holds."""
        return self.covered / self.total

    @property
    def balanced_accuracy(self) -> float:
        """Mean of coverage and quiet share."""
        return (self.coverage + self.quiet_share) / 2


@dataclass(frozen=True)
class Verdict:
    """What the explainer says of one unit."""

    explanation: str
    label: Literal[0, 1, 2] | None
    reasoning: str
    status: Literal["ok", "insufficient"]
    detail: str
    predicate: Predicate | None
    coverage: float | None
    p_null: float | None
    stability: float | None
    """Share of the halves that chose its predicate."""


class StatisticalExplainer:
    """Holds the background and the null; explains units one at a time, 15 ms each at most."""

    def __init__(self, corpus: Corpus, knobs: InterpretationsConfig) -> None:
        self.corpus = corpus
        self.knobs = knobs
        self.background = Background.sample(corpus, knobs.background_tokens, knobs.seed)
        self.null_accuracies: np.ndarray = np.empty(0)
        """Sorted balanced accuracies of the null sets."""
        self._quiet_background = np.random.default_rng([knobs.seed, 3]).permutation(self.background.size)

    def build_null(self, donors: list[np.ndarray]) -> None:
        """Run the procedure on random positions whose tokens are as frequent as those of real peaks.

        `donors`: the peaks of some units, one array of flat positions each.
        """
        rng = np.random.default_rng([self.knobs.seed, 4])
        observed_O = self.corpus.observed_O
        by_frequency = observed_O[np.argsort(self.corpus.count_V[self.corpus.token_N[observed_O]], kind="stable")]
        place_N = np.empty(len(self.corpus), dtype=np.int64)
        place_N[by_frequency] = np.arange(len(by_frequency))
        spread = max(int(len(by_frequency) * NULL_SPREAD), 1)
        trials, no_quiet = [], np.empty(0, np.int64)
        for turn in range(self.knobs.null_units if donors else 0):
            peaks = donors[turn % len(donors)]
            near = place_N[peaks] + rng.integers(-spread, spread + 1, len(peaks))
            drawn = by_frequency[np.clip(near, 0, len(by_frequency) - 1)]
            half = np.arange(len(drawn)) % 2
            trials.append(self._trial(drawn, np.ones(len(drawn)), half, no_quiet, no_quiet))
        self.null_accuracies = np.sort([trial.balanced_accuracy for trial in trials])

    def explain(self, evidence: Evidence) -> Verdict:
        """The verdict on one unit; `insufficient` when the halves hold too few contexts."""
        shown = evidence.shown(self.knobs.contexts_shown)
        part = evidence.part_n[shown]
        least = min(int((part == HALF_A).sum()), int((part == HALF_B).sum()))
        if len(shown) < self.knobs.min_contexts or least < self.knobs.min_contexts // 3:
            return _insufficient(len(shown), self.knobs.min_contexts)
        peaks, values = evidence.peak_n[shown], evidence.value_n[shown]
        features = self.corpus.features(peaks)
        predicate = find(self.background, features, values)
        trial = self._trial(peaks, values, part, evidence.quiet_q, evidence.quiet_part_q)
        return self._verdict(predicate, trial, int(predicate.holds(features).sum()) if predicate else 0)

    def _trial(
        self, peaks: np.ndarray, values: np.ndarray, part: np.ndarray, quiet: np.ndarray, quiet_part: np.ndarray
    ) -> Trial:
        features = self.corpus.features(peaks)
        found, covered, false, negatives = [], 0, 0, 0
        for fit, test in ((HALF_A, HALF_B), (HALF_B, HALF_A)):
            mine, other = part == fit, part == test
            predicate = find(self.background, features[:, mine], values[mine])
            found.append(predicate)
            hard = self._negatives(peaks[other], quiet[quiet_part == test])
            negatives += hard.shape[1]
            if predicate is None:
                continue
            covered += int(predicate.holds(features[:, other]).sum())
            false += int(predicate.holds(hard).sum())
        return Trial(covered, len(peaks), 1 - false / negatives, tuple(found))

    def _negatives(self, peaks: np.ndarray, quiet: np.ndarray) -> np.ndarray:
        """Features of quiet tokens, half of them with a peak's token; random background where a unit has none."""
        size = len(peaks)
        hard = quiet[np.isin(self.corpus.token_N[quiet], self.corpus.token_N[peaks])]
        random = _spread(quiet, size)
        if not len(random):
            return self.background.features_FM[:, self._quiet_background[: 2 * size]]
        return self.corpus.features(np.concatenate([random, _spread(hard, size)]))

    def _verdict(self, predicate: Predicate | None, trial: Trial, fitted: int) -> Verdict:
        null = self.null_accuracies
        p = (1 + len(null) - int(np.searchsorted(null, trial.balanced_accuracy))) / (1 + len(null))
        low = wilson(trial.covered, trial.total)[0]
        label = _label(predicate, low, trial.balanced_accuracy, p)
        if predicate is None:
            words, fit = "no common token, class or place", "no predicate is in excess"
        else:
            words, fit = predicate.words, f"holds on {fitted}/{trial.total} contexts"
        reasoning = (
            f"{fit}; fitted on one half of the rollouts it covers {trial.covered}/{trial.total} of the other "
            f"(at least {low:.2f}) and rules out {100 * trial.quiet_share:.0f} % of quiet tokens; p {p:.3f} by random "
            "positions"
        )
        rules = [each.rule for each in trial.found if each is not None]
        stability = 0.0 if predicate is None else rules.count(predicate.rule) / 2
        return Verdict(words, label, reasoning, "ok", "", predicate, trial.coverage, p, stability)


def _spread(rows: np.ndarray, size: int) -> np.ndarray:
    """At most `size` of them, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(size, len(rows))).astype(np.int64)] if len(rows) else rows


def _insufficient(found: int, needed: int) -> Verdict:
    detail = f"{found} contexts outside the held-out rollouts; {needed} over both halves are needed"
    return Verdict("", None, "", "insufficient", detail, None, None, None, None)


def _label(predicate: Predicate | None, low: float, accuracy: float, p: float) -> Literal[0, 1, 2]:
    if predicate is None or p > SIGNIFICANT:
        return 2
    specific = SPECIFIC & {family for family, _ in predicate.parts}
    if specific and predicate.join != "or" and low >= MONOSEMANTIC[0] and accuracy >= MONOSEMANTIC[1]:
        return 0
    return 1 if low >= BROAD[0] and accuracy >= BROAD[1] else 2
