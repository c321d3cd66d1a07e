"""When the vendor says wait, everyone waits: Retry-After and used-up rate limits hold the whole run back.

Otherwise requests leave one by one: what is sent in a burst comes back in a burst, and waits for the CPU.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

LONGEST_WAIT_S = 120.0
"""A longer demand is cut to this and tried again then."""
GAP_S = 0.002
"""Between two requests: less than the CPU time of one, so that a Python process could not send more of them anyway."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_HEADERS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
)


def seconds_of(text: str) -> float:
    """`6m0s`, `20ms`, `1.5` or an RFC 3339 moment as seconds from now; 0 for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def wait_asked(headers: Mapping[str, str]) -> float:
    """Seconds until a used-up rate limit is filled again; 0 while there is room."""
    found = dict(headers.items())  # one walk: each look into the client's own headers is another
    waits = [seconds_of(found.get(reset, "")) for left, reset in _HEADERS if found.get(left) == "0"]
    return max(waits, default=0.0)


class Pace:
    """Holds requests back until a moment, and spaces them."""

    def __init__(self) -> None:
        self._until = 0.0
        self._next = 0.0

    def hold(self, seconds: float) -> None:
        """Nobody sends for so long."""
        self._until = max(self._until, time.monotonic() + min(seconds, LONGEST_WAIT_S))

    async def wait(self) -> None:
        """Return when sending is allowed."""
        while (left := self._until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def turn(self) -> None:
        """Return when it is the caller's turn."""
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + GAP_S
        await asyncio.sleep(turn - now)
