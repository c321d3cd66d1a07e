"""How hard and how far a run may go: read from the compute section, never part of a key."""

from dataclasses import dataclass
from typing import Literal

from resources.compute import ComputeConfig


@dataclass(frozen=True)
class Limits:
    """Bounds of one run."""

    mode: Literal["live", "batch"]
    concurrency: int
    attempts: int
    """Tries of a request that gets no answer."""
    timeout_s: float
    poll_s: float
    run_dollars: float
    purse: str
    purse_dollars: float
    unusable: int = 3
    """Answers paid for before an item is given up: refusals, cut or malformed JSON, unknown values."""
    backoff_s: float = 0.5
    """First wait after a failed try; doubles up to 16 times that, as in both vendors' SDKs."""

    @classmethod
    def of(cls, compute: ComputeConfig) -> "Limits":
        """The limits that an experiment's compute section sets."""
        return cls(
            mode=compute.llm_mode,
            concurrency=compute.llm_concurrency,
            attempts=compute.llm_attempts,
            timeout_s=compute.llm_timeout_s,
            poll_s=compute.llm_poll_s,
            run_dollars=compute.llm_run_dollars,
            purse=compute.llm_purse,
            purse_dollars=compute.llm_purse_dollars,
        )
