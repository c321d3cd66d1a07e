"""Where a job runs, as seen from inside it: never part of a cache key, never a change of result."""

from typing import Literal

from pydantic import Field

from resources.section import Section


class ComputeConfig(Section):
    """The `compute` section of an experiment."""

    profile: Literal["cpu", "8xH200"] = "8xH200"
    """Node the experiment is meant for; `cpu` runs everything on this machine's cores."""
    processes: int = Field(default=2, ge=1, le=1024)
    """Worker processes of a parallel stage on the `cpu` profile (one thread each)."""
    tokens_per_batch: int = Field(default=32768, ge=1)
    """Most tokens of one forward pass per process; bounds memory, not the result."""

    checkpoint_steps: int = Field(default=25, ge=1)
    """Optimiser steps between two checkpoints of a training; a killed one goes on from the last."""
    recomputed_layers: int | None = Field(default=None, ge=0)
    """Layers whose activations the backward pass computes again: less memory, more time. Null: all; 0: none."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The torch device type of this profile."""
        return "cpu" if self.profile == "cpu" else "cuda"
