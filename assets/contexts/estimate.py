"""What collecting contexts holds on a GPU and how long it takes: for the launcher and `lorascope plan --explain`."""

from assets.activations.config import NeuronsConfig
from assets.contexts.config import ENCODED_ROWS
from assets.sae.config import SaeConfig
from resources.components import PROJECTIONS
from resources.memory import MemoryEstimate, Part, Setup
from resources.work import Setting, WorkEstimate

SCALARS_PER_SECOND = 25_000 * 448
"""Of one process on a CPU core: decompressed, encoded, compared and tallied (bench/contexts.py, in RESULTS.md)."""
READINGS = 2
"""Of every shard: one chooses the contexts, one cuts them out."""


def held(on: Setup) -> MemoryEstimate:
    """The SAE and one block of its scores; everything else stays on the host."""
    d = len(PROJECTIONS) * on.sizes.num_hidden_layers
    f = on.knobs(SaeConfig).expansion * d
    return MemoryEstimate(
        (
            Part("SAE", 2 * d * f * 4, f"2 x {d} components x {f} latents x 4 bytes"),
            Part("block", ENCODED_ROWS * (d + 4 * f) * 4, f"{ENCODED_ROWS} tokens x ({d} + 4 x {f}) x 4 bytes"),
        )
    )


def collect_hours(on: Setting) -> WorkEstimate:
    """Two readings of all scalars, divided among one process per GPU."""
    scalars = (len(PROJECTIONS) + on.knobs(NeuronsConfig).per_layer) * on.sizes.num_hidden_layers
    hours = READINGS * on.corpus.tokens * scalars / (on.gpus * SCALARS_PER_SECOND) / 3600
    speed = f"{on.gpus} processes x {SCALARS_PER_SECOND / 1e6:.0f} M scalars/s (one CPU core, bench/contexts.py)"
    return WorkEstimate(hours, f"{READINGS} readings of {on.corpus.tokens} tokens x {scalars} scalars, {speed}")
