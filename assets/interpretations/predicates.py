"""Predicates over tokens and the search for the one or two that tell a unit's peaks from the corpus.

Dunning's G² ("Accurate Methods for the Statistics of Surprise and Coincidence", 1993) of each candidate against a
background sample, with a price per choice (BIC); a second predicate may narrow (AND) or widen (OR).
Shapes: F families, n positives, M background tokens, C candidates.
"""

from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import numpy as np

from assets.interpretations.artifact import FAMILIES, Join, Predicate
from assets.interpretations.corpus import Corpus

JOINT_LIMIT = 2048
"""Background tokens looked at for a joint count; more are thinned evenly, at 2 % error on a count of half of them."""
LEAST_GAIN = 10.8
"""G² a second predicate must add beyond its price: chi² with one degree of freedom at p = .001."""


@dataclass(frozen=True)
class Background:
    """A fixed random sample of the corpus, indexed by predicate number."""

    corpus: Corpus
    features_FM: np.ndarray
    offset_F: np.ndarray
    """Predicate number = offset of the family + value."""

    @classmethod
    def sample(cls, corpus: Corpus, size: int, seed: int) -> "Background":
        """At most `size` observed positions without replacement."""
        rng = np.random.default_rng([seed, 1])
        chosen = rng.choice(corpus.observed_O, size=min(size, len(corpus.observed_O)), replace=False)
        wide = max(len(corpus.vocabulary), 64) + 1
        return cls(corpus, corpus.features(np.sort(chosen)), np.arange(len(FAMILIES), dtype=np.int64) * wide)

    @property
    def size(self) -> int:
        """Background tokens M."""
        return self.features_FM.shape[1]

    def numbers(self, features_Fn: np.ndarray) -> np.ndarray:
        """Predicate numbers int64 [F, n]; -1 stays -1."""
        return np.where(features_Fn < 0, -1, features_Fn + self.offset_F[:, None])

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted predicate numbers of the sample and the sample positions in that order."""
        flat = self.numbers(self.features_FM).ravel()
        order = np.argsort(flat, kind="stable")
        return flat[order], order % self.size

    @cached_property
    def price_F(self) -> np.ndarray:
        """What choosing a value of each family costs: 2 ln(distinct values).

        A class costs as much as a token: where both hold on the same places, the token is the better explanation.
        """
        distinct = [max(2, len(np.unique(row))) for row in self.features_FM]
        finest = {"word": "token", "class": "token", "previous class": "previous", "next class": "next"}
        return 2 * np.log([distinct[FAMILIES.index(finest.get(family, family))] for family in FAMILIES])

    def counts(self, number_C: np.ndarray) -> np.ndarray:
        """How many background tokens each predicate holds on."""
        flat, _ = self._order
        return np.searchsorted(flat, number_C, "right") - np.searchsorted(flat, number_C, "left")

    def joint(self, number: int, number_C: np.ndarray) -> np.ndarray:
        """How many background tokens both `number` and each of the sorted `number_C` hold on."""
        flat, where = self._order
        rows = where[np.searchsorted(flat, number, "left") : np.searchsorted(flat, number, "right")]
        step = -(-len(rows) // JOINT_LIMIT) or 1
        numbers = self.numbers(self.features_FM[:, rows[::step]]).ravel()
        at = np.minimum(np.searchsorted(number_C, numbers), len(number_C) - 1)
        return step * np.bincount(at[number_C[at] == numbers], minlength=len(number_C))

    def unpack(self, number: int) -> tuple[int, int]:
        """(family, value) of a predicate number."""
        family = int(np.searchsorted(self.offset_F, number, "right")) - 1
        return family, int(number - self.offset_F[family])


def surprise(k: np.ndarray, n: float, background: np.ndarray, size: int) -> np.ndarray:
    """One-sided G² of seeing k of n where the background has `background` of `size`; 0 where k is not in excess."""
    rate = np.clip((background + 0.5) / (size + 1), 1e-12, 1 - 1e-12)
    share = np.clip(k / n, 0.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.where(share > 0, share * np.log(share / rate), 0.0)
        outside = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - rate)), 0.0)
    return np.where(share > rate, 2 * n * (inside + outside), 0.0)


def find(background: Background, features_Fn: np.ndarray, weight_n: np.ndarray) -> Predicate | None:
    """The predicate that best tells the weighted positives from the background; None when nothing is in excess."""
    number_Fn = background.numbers(features_Fn)
    n = number_Fn.shape[1]
    weight_n = weight_n * (n / weight_n.sum())
    number_C, inverse = np.unique(number_Fn, return_inverse=True)
    inverse_Fn = inverse.reshape(number_Fn.shape)
    k_C = _count(inverse_Fn, weight_n, len(number_C))
    background_C = background.counts(number_C)
    family_C = np.searchsorted(background.offset_F, number_C, "right") - 1
    price_C = np.where(number_C >= 0, background.price_F[family_C], np.inf)
    score_C = surprise(k_C, n, background_C, background.size) - price_C
    best = int(score_C.argmax())
    if score_C[best] <= 0:
        return None
    found: list[tuple[float, Join, int, int]] = [(score_C[best] + LEAST_GAIN, "", best, best)]
    covered_n = (inverse_Fn == best).any(axis=0)
    joint_k_C = _count(inverse_Fn[:, covered_n], weight_n[covered_n], len(number_C))
    joint_C = background.joint(int(number_C[best]), number_C)
    narrow_C = surprise(joint_k_C, n, joint_C, background.size) - price_C - price_C[best]
    found.append((narrow_C.max(), "and", best, int(narrow_C.argmax())))
    # Values of one family exclude each other, so counts of "this or that" add up.
    partner_C = _most_frequent(k_C, family_C, number_C >= 0)[family_C]
    wide_C = surprise(k_C + k_C[partner_C], n, background_C + background_C[partner_C], background.size) - 2 * price_C
    wide_C[partner_C == np.arange(len(wide_C))] = -np.inf
    widest = int(wide_C.argmax())
    found.append((wide_C[widest], "or", int(partner_C[widest]), widest))
    _, join, first, second = max(found, key=itemgetter(0))
    return _predicate(background, join, int(number_C[first]), int(number_C[second]))


def _count(inverse_Fn: np.ndarray, weight_n: np.ndarray, size: int) -> np.ndarray:
    """Summed weights of the positives on which each candidate holds."""
    return np.bincount(inverse_Fn.ravel(), weights=np.tile(weight_n, len(inverse_Fn)), minlength=size)


def _most_frequent(k_C: np.ndarray, family_C: np.ndarray, valid_C: np.ndarray) -> np.ndarray:
    """int [F]: the candidate that holds most often in each family (0 where a family has none)."""
    order = np.flatnonzero(valid_C)[np.argsort(k_C[valid_C], kind="stable")]
    most_F = np.zeros(len(FAMILIES), dtype=np.int64)
    most_F[family_C[order]] = order
    return most_F


_PHRASES = {
    "token": "token {}", "word": "word {} in any case", "class": "any {}", "previous": "after {}",
    "previous class": "after any {}", "next": "before {}", "next class": "before any {}",
    "two before": "two tokens after {}", "line start": "at a line's start", "sentence start": "at a sentence's start",
    "block": "inside the {} block",
}  # fmt: skip


def phrase(corpus: Corpus, part: tuple[int, int]) -> str:
    """One (family, value) pair in words."""
    family, value = part
    if FAMILIES[family] == "place":
        return f"{value * 10} to {value * 10 + 10} % of the rollout"
    return _PHRASES[FAMILIES[family]].format(corpus.value_name(family, value))


def _predicate(background: Background, join: Join, first: int, second: int) -> Predicate:
    corpus = background.corpus
    # Of two values of a family the commoner comes first: it says what the unit is, a token's number says nothing.
    numbers = (first, second) if join == "or" else sorted({first, second})
    parts = [background.unpack(number) for number in numbers]
    words = (", " if join == "and" else " or ").join(phrase(corpus, part) for part in parts)
    named = [(FAMILIES[family], value) for family, value in parts]
    return Predicate(
        first=named[0],
        join=join,
        second=named[1] if len(named) > 1 else None,
        classes=tuple(corpus.class_of(family, value) for family, value in parts),
        words=words,
    )
