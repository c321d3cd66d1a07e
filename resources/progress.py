"""How long work tells its user where it stands: a line at most every two seconds, with rate and time left.

A picture costs 0.2 s to draw and 90 kB of the run log, so there are fewer: 85 of them in four hours.
"""

import time
from collections.abc import Callable, Mapping

PICTURE_S = 30.0
"""Least seconds between two pictures."""
PICTURE_SHARE = 0.05
"""Least share of the time so far that lies between two pictures."""


class Progress:
    """Speaks through `emit`; made by the worker (Dagster run log) or by a test or notebook (any function)."""

    def __init__(
        self,
        emit: Callable[[str], None],
        interval_s: float = 2.0,
        stop: Callable[[], bool] = lambda: False,
        show: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """`interval_s`: least seconds between two lines of `step`; `stop`: whether the node wants the job to end.

        `show`: takes (name, PNG) where somebody looks at pictures.
        """
        self._emit = emit
        self._stop = stop
        self._show = show
        self._interval_s = interval_s
        self._last = 0.0
        self._born = self._drawn = time.monotonic()
        self._began: dict[str, tuple[float, int]] = {}

    @property
    def stopping(self) -> bool:
        """The walltime is nearly over: save, then raise `Interrupted`; another attempt goes on from there."""
        return self._stop()

    def say(self, text: str) -> None:
        """One line, at once."""
        self._emit(text)

    def picture(self, name: str, draw: Callable[[], bytes]) -> None:
        """Show how it goes; `draw` makes a PNG, and is called only when it is time for one and somebody looks."""
        now = time.monotonic()
        if self._show is None or now - self._drawn < max(PICTURE_S, PICTURE_SHARE * (now - self._born)):
            return
        self._drawn = now
        self._show(name, draw())

    def step(
        self, what: str, done: int, total: int, numbers: Mapping[str, float] | None = None, found: int = 0
    ) -> None:
        """`what done/total`, the numbers, and the time left; lines that come too soon are dropped, the last never.

        `found`: how many of `done` an earlier run had left; they came at once and say nothing of the time left.
        """
        now = time.monotonic()
        made = done - found
        began, first = self._began.get(what, (now, made))
        if made == first:  # reading what was left took time too
            began = now
        self._began[what] = (began, first)
        if done < total and now - self._last < self._interval_s:
            return
        self._last = now
        shown = "".join(f"  {name} {value:.4g}" for name, value in (numbers or {}).items())
        rate = (made - first) / (now - began) if now > began else 0.0
        left = f"  {_duration((total - done) / rate)} left" if rate > 0 and done < total else ""
        self._emit(f"{what} {done}/{total}{shown}{left}")


def _duration(seconds: float) -> str:
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} h"
