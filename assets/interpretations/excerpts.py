"""Contexts as text for prompts: the rollout's exact characters, escaped, with activations on the 0 to 10 scale."""

from pathlib import Path

import numpy as np

from assets.dataset.artifact import S1kDataset
from assets.interpretations.corpus import quoted
from assets.interpretations.evidence import Window
from resources.llm.prompts import escaped

SCALE = 10.0
"""Activation of the strongest token of all shown contexts (paper: 0 to 10)."""
MARKS = ("«", "»")


class Excerpts:
    """Cuts excerpts from the dataset's rollouts."""

    def __init__(self, dataset: Path) -> None:
        self._dataset = S1kDataset.open(dataset)

    def context(self, number: int, window: Window, most: float, around: int, least: float, listed: int) -> str:
        """One `<example>`: the excerpt and its active tokens, strongest first."""
        first, last = self._bounds(window, window.position, around)
        scaled = SCALE * window.values[first - window.start : last - window.start] / most
        order = sorted(np.flatnonzero(scaled >= max(least, 1e-9)).tolist(), key=lambda place: (-scaled[place], place))
        pieces = self._pieces(window.rollout_id, first, last)
        active = "\n".join(f"{escaped(quoted(pieces[place]))} {scaled[place]:.2f}" for place in order[:listed])
        shown = self._cut(window.rollout_id, first, last)
        return f'<example number="{number}">\n{shown}\n<active>\n{active}\n</active>\n</example>'

    def example(self, number: int, window: Window, centre: int, around: int, marked: frozenset[int]) -> str:
        """One `<example>` around a position, with the tokens at `marked` positions between « and »."""
        first, last = self._bounds(window, centre, around)
        return f'<example number="{number}">\n{self._cut(window.rollout_id, first, last, marked)}\n</example>'

    def _bounds(self, window: Window, centre: int, around: int) -> tuple[int, int]:
        """Positions [first, last) around a centre, inside the window."""
        end = window.start + len(window.values)
        return max(window.start, centre - around), min(end, centre + around + 1)

    def _pieces(self, rollout: int, first: int, last: int) -> list[str]:
        """Texts of the tokens at positions [first, last)."""
        text = self._dataset.text(rollout)
        return [text[start:end] for start, end in self._dataset.spans(rollout)[first:last].tolist()]

    def _cut(self, rollout: int, first: int, last: int, marked: frozenset[int] = frozenset()) -> str:
        shown = [
            f"{MARKS[0]}{escaped(piece)}{MARKS[1]}" if position in marked else escaped(piece)
            for position, piece in enumerate(self._pieces(rollout, first, last), first)
        ]
        before = "..." if first > 0 else ""
        after = "..." if last < self._dataset.lengths[rollout] else ""
        return before + "".join(shown) + after
