"""How many tokens all stages will read, before the dataset is there: for `lorascope plan --explain`."""

from assets.dataset.config import PUBLISHED, DatasetConfig
from resources.work import Corpus

PUBLISHED_ROLLOUTS, PUBLISHED_TOKENS = 1000, 10_000_000
"""s1K-1.1 in Qwen's tokens, to one digit."""


def expected(dataset: DatasetConfig) -> Corpus | None:
    """The corpus of the published dataset; None for any other one."""
    if dataset.source != PUBLISHED[0]:
        return None
    rollouts = min(PUBLISHED_ROLLOUTS, dataset.max_rollouts or PUBLISHED_ROLLOUTS)
    length = min(PUBLISHED_TOKENS / PUBLISHED_ROLLOUTS, dataset.block_size)
    return Corpus(rollouts, int(rollouts * length), "s1K-1.1 to one digit, the dataset is not there yet")
