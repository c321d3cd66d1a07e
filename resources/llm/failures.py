"""What went wrong with a request: whether to try again, whether it was charged, and words that leak no key."""

import os
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from resources.llm.endpoint import KEY_VARIABLES, Provider
from resources.llm.pace import LONGEST_WAIT_S

_SECRET = re.compile(
    r"\b(?:sk|pk|rk|key|token)-[\w-]{8,}|(?<=Bearer )[\w.~+/-]+=*|(?<=api key )\S+|(?<=api_key=)\S+", re.IGNORECASE
)
_SPENT = re.compile(r"API usage limits|enforced_spend_limit_reached", re.IGNORECASE)
"""Anthropic's words for a spend limit, with status 400 or 429; asking again before its month ends is in vain."""
_TOO_LONG = "context length is only"
"""vLLM's words that the library does not know; "maximum context length" it does."""
LONGEST = 300
"""Characters of an error message that are kept."""
LATE = "no answer in time"
"""Why an answer is missing that a longer time-out would have let come."""


@dataclass(frozen=True)
class Failure:
    """One failed try."""

    kind: Literal["fatal", "too long", "rejected", "retry"]
    """`fatal` stops the run; `rejected` ends this question; `retry` may go better next time."""
    charged: Literal["no", "unknown"]
    reason: str
    reached: bool
    """Whether the server answered at all."""
    wait_s: float = 0.0
    """What the server asked for, at most `LONGEST_WAIT_S`."""
    crowded: bool = False
    """The server has no room just now, for whatever question."""


def redacted(text: str) -> str:
    """The text on one line without anything that is or looks like a key."""
    for variable in KEY_VARIABLES.values():
        secret = os.environ.get(variable, "").strip()
        if len(secret) >= 4:
            text = text.replace(secret, "[key]")
    return _SECRET.sub("[key]", " ".join(text.split()))[:LONGEST]


def misfit(what: str, error: ValidationError) -> str:
    """Why an answer cannot be used: `what`, then the first place that does not fit."""
    first = error.errors()[0]
    return redacted(f"{what}: {'.'.join(map(str, first['loc']))} {first['msg']}")


def classify(error: Exception, provider: Provider) -> Failure | None:
    """What the exception of one request means; None for a bug, which is raised as it is."""
    from pydantic_ai import exceptions as known

    reason = redacted(str(error) or type(error).__name__)
    if isinstance(error, TimeoutError | known.ModelTimeoutError):
        return Failure("retry", "unknown", LATE, reached=False)
    if isinstance(error, known.ModelAuthenticationError):
        return Failure("fatal", "no", f"{reason}; set its key in {KEY_VARIABLES[provider]}", reached=True)
    spent = isinstance(error, known.ModelHTTPError) and _SPENT.search(str(error))
    if spent or isinstance(error, known.ModelNotFoundError | known.ModelQuotaExceededError):
        return Failure("fatal", "no", reason, reached=True)
    too_long = isinstance(error, known.ModelHTTPError) and _TOO_LONG in str(error)
    if too_long or isinstance(error, known.ModelContextWindowExceededError):
        return Failure("too long", "no", reason, reached=True)
    if isinstance(error, known.ModelConnectionError):
        lost = "no" if error.phase in ("connect", "pool") else "unknown"
        return Failure("retry", lost, redacted(_root(error)), reached=False)
    if isinstance(error, known.ModelRateLimitError | known.ModelUnavailableError | known.ModelServerError):
        wait_s = min(error.retry_after or 0.0, LONGEST_WAIT_S)
        crowded = not isinstance(error, known.ModelServerError)
        return Failure("retry", "no", reason, reached=True, wait_s=wait_s, crowded=crowded)
    if isinstance(error, known.ModelHTTPError):
        return _by_status(error.status_code, reason)
    if isinstance(error, known.ModelAPIError | known.UnexpectedModelBehavior):
        return Failure("retry", "unknown", reason, reached=True)
    if isinstance(error, AttributeError | LookupError | TypeError):
        # The libraries read the fields of what came without a look at its shape.
        strange = f"the answer has another shape than this API's ({type(error).__name__}: {reason})"
        return Failure("retry", "unknown", strange, reached=True)
    return None


def _root(error: BaseException) -> str:
    """What the first exception of a chain says; both vendors' SDKs say "Connection error." of whatever it is."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _by_status(status: int, reason: str) -> Failure:
    """Errors that the library puts into no category; 400 to 499 except 408 and 409 will not change by asking again."""
    if status in (408, 409) or status >= 500:
        return Failure("retry", "no", reason, reached=True)
    if status in (401, 403, 404):
        return Failure("fatal", "no", reason, reached=True)
    return Failure("rejected", "no", reason, reached=True)
