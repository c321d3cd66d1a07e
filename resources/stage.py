"""What one asset is, apart from Dagster: the call that makes it, the config it sees, the artifacts it reads."""

from dataclasses import dataclass

SAVING_S = 120
"""Seconds that most stages need at most to save their state."""


@dataclass(frozen=True)
class Needs:
    """What one job asks of a node."""

    gpus: int = 0
    """Most that it can use, on the GPU profile; a smaller node gives what it has."""
    parallel: bool = False
    """The call shares its work between torchrun processes (one per GPU, or per CPU worker)."""
    idle_when: str = ""
    """`module:function(sections) -> bool`, whether they leave nothing for GPUs to do and one process is enough; empty:
    never."""
    minutes: int = 60
    """Walltime to ask a scheduler for at the paper's scale."""
    saving_s: int = SAVING_S
    """Seconds that saving its state may take: so long before the end of its walltime a job is told to."""
    memory_model: str = ""
    """`module:function(setup) -> MemoryEstimate`; empty: not modelled."""
    disk_model: str = ""
    """`module:function(setup) -> MemoryEstimate | None`, what lies on the home's disk at the worst moment; empty: less
    than 100 GB."""
    time_model: str = ""
    """`module:function(setting) -> WorkEstimate | None`; empty: not modelled. Of a paid stage:
    `(sections, units, compute)`, as its cost model."""
    cost_model: str = ""
    """`module:function(sections, units, compute) -> float`, US dollars of paid requests (`units`: of each kind); empty:
    free."""


@dataclass(frozen=True)
class Stage:
    """One asset. The parameters of `call` are exactly `sections` and `inputs`, by name.

    `call` may also take `out`, `scratch`, `progress` and `compute`, which never enter the key.
    """

    asset: str
    room: str
    code_version: int
    call: str
    """`module:function` run in a worker process; returns a pydantic model of metrics."""
    artifact: str
    """`module:Class` with `open(path)` and `table() -> pyarrow.Table`."""
    sections: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    needs: Needs = Needs()
