"""Held-out examples for an LLM to judge: firing windows, random quiet ones, and quiet ones with a peak's own token."""

from dataclasses import dataclass

import numpy as np

from assets.interpretations.config import ScoresConfig
from assets.interpretations.corpus import Corpus
from assets.interpretations.evidence import HELD_OUT, Evidence, Window

LEAST = 2
"""Fewer firing or quiet windows than this and the unit is not judged."""
INTRUDERS = 5
"""Excerpts of an intruder question, one of them the intruder."""


@dataclass(frozen=True)
class Example:
    """One excerpt to judge."""

    window: Window
    centre: int
    fires: bool
    hard: bool
    """A quiet excerpt that holds a token on which the unit fires elsewhere."""
    marked: frozenset[int] = frozenset()


def draw_examples(evidence: Evidence, scores: ScoresConfig, corpus: Corpus, rng: np.random.Generator) -> list[Example]:
    """Half firing, a quarter random and a quarter hard; empty when there are too few. Shuffled."""
    fires, easy, hard = _pools(evidence, scores.tokens_around, corpus)
    if len(fires) < LEAST or len(easy) + len(hard) < LEAST:
        return []
    half = scores.examples // 2
    tricky = _some(hard, half // 2, rng)
    chosen = _some(fires, half, rng) + tricky + _some(easy, half - len(tricky), rng)
    return [chosen[place] for place in rng.permutation(len(chosen))]


def draw_marked(evidence: Evidence, scores: ScoresConfig, corpus: Corpus, rng: np.random.Generator) -> list[Example]:
    """Firing windows with the firing tokens marked, or as many others; shuffled; empty without any of the latter."""
    fires, _, _ = _pools(evidence, scores.tokens_around, corpus)
    if len(fires) < LEAST:
        return []
    chosen = []
    for place, example in enumerate(_some(fires, scores.examples, rng)):
        marked = _marked(example, scores.tokens_around, place % 2 == 0, rng)
        if marked:
            chosen.append(Example(example.window, example.centre, place % 2 == 0, place % 2 == 1, marked))
    if all(example.fires for example in chosen):  # there is no token to mark wrongly
        return []
    return [chosen[place] for place in rng.permutation(len(chosen))]


def draw_intruder(evidence: Evidence, scores: ScoresConfig, corpus: Corpus, rng: np.random.Generator) -> list[Example]:
    """Four firing excerpts and a quiet one, shuffled; empty when there are too few."""
    fires, easy, hard = _pools(evidence, scores.tokens_around, corpus)
    quiet = easy or hard
    if len(fires) < INTRUDERS - 1 or not quiet:
        return []
    chosen = _some(fires, INTRUDERS - 1, rng) + _some(quiet, 1, rng)
    return [chosen[place] for place in rng.permutation(len(chosen))]


def _some(examples: list[Example], size: int, rng: np.random.Generator) -> list[Example]:
    places = rng.choice(len(examples), size=min(size, len(examples)), replace=False) if examples else []
    return [examples[place] for place in places]


def _marked(example: Example, around: int, firing: bool, rng: np.random.Generator) -> frozenset[int]:
    window = example.window
    places = [place for place in range(len(window.values)) if abs(window.start + place - example.centre) <= around]
    active = [window.start + place for place in places if window.values[place] > 0]
    if firing:
        return frozenset(active)
    silent = [window.start + place for place in places if window.values[place] <= 0]
    if not silent:
        return frozenset()
    return frozenset(rng.choice(silent, size=min(len(active), len(silent)), replace=False).tolist())


def _pools(evidence: Evidence, around: int, corpus: Corpus) -> tuple[list[Example], list[Example], list[Example]]:
    """Firing, random quiet and hard quiet examples of the held-out rollouts."""
    held = [evidence.windows[place] for place in np.flatnonzero(evidence.part_n == HELD_OUT)]
    fires = [Example(window, window.position, True, False) for window in held]
    tokens = frozenset(corpus.token_N[evidence.peak_n].tolist())
    easy, hard = [], []
    for window in evidence.windows:
        if window.held_out:
            for centre in _quiet_centres(window, around):
                first = corpus.first[window.rollout_id]
                if int(corpus.token_N[first + centre]) in tokens:
                    hard.append(Example(window, centre, False, True))
            if window.sample == "silent" and _is_quiet(window, window.position, around):
                easy.append(Example(window, window.position, False, False))
    return fires, easy, hard


def _is_quiet(window: Window, centre: int, around: int) -> bool:
    at = centre - window.start
    return not (window.values[max(0, at - around) : at + around + 1] > 0).any()


def _quiet_centres(window: Window, around: int) -> list[int]:
    """Positions of a window with no firing within `around` tokens, as far as the window shows."""
    places = range(min(around, len(window.values)), max(len(window.values) - around, 0))
    return [window.start + place for place in places if _is_quiet(window, window.start + place, around)]
