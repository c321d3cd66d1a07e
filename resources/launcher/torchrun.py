"""torchrun that leaves the last word to the failing rank: python -m resources.launcher.torchrun TORCHRUN_ARGUMENTS

torchrun ends a failure with a stack trace of its own; the rank has told its error already (failure.json and log).
"""

import logging
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main(arguments: Sequence[str]) -> int:
    """Run the ranks; the exit code of the first one that failed, as a shell gives it, or 0."""
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        torchrun(list(arguments))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        # A rank that a signal ended could tell nothing itself.
        sys.stderr.write(f"rank {rank} ended: {failure.message}\n")
        return 128 - failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
