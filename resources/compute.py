"""Where a job runs, as seen from inside it: never part of a cache key, never a change of result."""

from typing import Literal

from pydantic import Field

from resources.section import Section


class ComputeConfig(Section):
    """The `compute` section of an experiment."""

    profile: Literal["cpu", "8xH200"] = "8xH200"
    """Node the experiment is meant for; `cpu`: no stage asks for a GPU."""
    processes: int = Field(default=2, ge=1, le=1024)
    """Worker processes of a parallel stage on the `cpu` profile (one thread each)."""
    tokens_per_batch: int = Field(default=32768, ge=1)
    """Most tokens of one forward pass per process; bounds memory, not the result."""

    checkpoint_steps: int = Field(default=25, ge=1)
    """Optimiser steps between two checkpoints of a training; a killed one goes on from the last. More where writing
    them takes long: the full finetune's have 393 GB."""
    recomputed_layers: int | None = Field(default=None, ge=0)
    """Layers whose activations the backward pass computes again: less memory, more time. Null: all; 0: none."""

    llm_mode: Literal["live", "batch"] = "live"
    """`batch`: through the vendor's Batch API, half the price and up to a day (vendors' documentation)."""
    llm_concurrency: int = Field(default=20, ge=1, le=1024)
    """Most LLM requests under way at once (authors' code: 20)."""
    llm_attempts: int = Field(default=5, ge=1, le=20)
    """Tries of one LLM request (authors' code: 5). What the server fails on in so many, and in so many more at the end
    while it answers another question, is listed as failed with its unit."""
    llm_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds until one try is given up (authors' code: 30, too short for reasoning models)."""
    llm_poll_s: float = Field(default=30.0, gt=0)
    """Seconds between two looks at a batch."""
    llm_run_dollars: float = Field(default=50.0, ge=0)
    """Most US dollars one run of one asset may spend on LLM requests; reserved before each request is sent."""
    llm_purse: str = "default"
    """Name under which spending is added up over runs; experiments may share one or have their own."""
    llm_purse_dollars: float = Field(default=200.0, ge=0)
    """Most US dollars that all runs of the purse together may spend."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The torch device type of this profile."""
        return "cpu" if self.profile == "cpu" else "cuda"
