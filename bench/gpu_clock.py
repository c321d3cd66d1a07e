"""Seconds of work that a GPU may go on with after the call has returned."""

import time
from collections.abc import Callable

import torch


def wall_seconds(device: str | torch.device, work: Callable[[], object]) -> float:
    """With the device idle before and after."""
    synchronise = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    synchronise()
    began = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - began
