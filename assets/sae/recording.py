"""Work on a GPU that the host starts at once: a CUDA graph of all its kernels."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

WARMING_CALLS = 2
"""Before the one that is recorded: libraries allocate what they keep."""

Given = TypeVar("Given")
Found = TypeVar("Found")


def recorded(take: Callable[[Given], Found]) -> Callable[[Given], Found]:
    """`take`, its kernels recorded after a few calls and started together from then on.

    From the recording on its argument must be the same tensors, with new numbers in them; so are what it returns.
    """
    graph, done, found = torch.cuda.CUDAGraph(), 0, list[Found]()

    def repeat(given: Given) -> Found:
        nonlocal done
        done += 1
        with torch.no_grad():
            if done <= WARMING_CALLS:
                return _apart(partial(take, given))
            if not found:
                with torch.cuda.graph(graph):
                    found.append(take(given))
        graph.replay()
        return found[0]

    return repeat


def _apart(work: Callable[[], Found]) -> Found:
    """On a stream of its own, as a recording asks of what precedes it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = work()
    torch.cuda.current_stream().wait_stream(stream)
    return found
