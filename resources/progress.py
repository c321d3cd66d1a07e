"""How long work tells its user where it stands: a line at most every two seconds, with rate and time left."""

import time
from collections.abc import Callable, Mapping


class Progress:
    """Speaks through `emit`; made by the worker (Dagster run log) or by a test or notebook (any function)."""

    def __init__(
        self, emit: Callable[[str], None], interval_s: float = 2.0, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """`interval_s`: least seconds between two lines of `step`; `stop`: whether the node wants the job to end."""
        self._emit = emit
        self._stop = stop
        self._interval_s = interval_s
        self._last = 0.0
        self._began: dict[str, tuple[float, int]] = {}

    @property
    def stopping(self) -> bool:
        """The walltime is nearly over: save, then raise `Interrupted`; another attempt goes on from there."""
        return self._stop()

    def say(self, text: str) -> None:
        """One line, at once."""
        self._emit(text)

    def step(self, what: str, done: int, total: int, numbers: Mapping[str, float] | None = None) -> None:
        """`what done/total`, the numbers, and the time left; lines that come too soon are dropped, the last never."""
        now = time.monotonic()
        began, first = self._began.setdefault(what, (now, done))
        if done < total and now - self._last < self._interval_s:
            return
        self._last = now
        shown = "".join(f"  {name} {value:.4g}" for name, value in (numbers or {}).items())
        rate = (done - first) / (now - began) if now > began else 0.0
        left = f"  {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        self._emit(f"{what} {done}/{total}{shown}{left}")
