"""Units and their contexts on disk: schemas, and a reader that fetches one unit's rows.

A unit's rows stand together, in the order of `units.parquet`: its strongest contexts, the quantiles, the silent ones.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from resources.artifact import Artifact
from resources.columns import required
from resources.errors import BadInput
from resources.units import Unit, parse_unit

UNITS_FILE, CONTEXTS_FILE = "units.parquet", "contexts.parquet"
Sample = Literal["top", "quantile", "silent"]
SAMPLES: tuple[Sample, ...] = ("top", "quantile", "silent")
NUM_BINS = 20
"""Bins of a unit's histogram."""


UNITS = pa.schema(
    [
        required("unit", pa.string(), "adapter:L3.gate_proj:+, neuron:L2.17:- or latent:448"),
        required("kind", pa.string(), "adapter, neuron or latent"),
        required("layer", pa.int32(), "-1 for latents"),
        required("projection", pa.string(), "adapted matrix; empty for neurons and latents"),
        required("index", pa.int32(), "neuron or latent number; -1 for adapter directions"),
        required("polarity", pa.int8(), "sign of the activations that count as firing"),
        required("threshold", pa.float32(), "fires above this, in its own polarity"),
        required("n_tokens", pa.int64(), "tokens looked at"),
        required("n_fired", pa.int64(), "tokens on which it fires"),
        required("density", pa.float64(), "n_fired / n_tokens"),
        required("sum", pa.float64(), "sum of the firing activations, in the unit's own polarity"),
        required("max", pa.float32(), "largest activation, in its own polarity; 0 when it never fires"),
        required(
            "histogram",
            pa.list_(pa.int64(), NUM_BINS),
            "firing tokens in 20 equal bins, each open below, over (0, max]",
        ),
    ]
)
CONTEXTS = pa.schema(
    [
        required("unit", pa.string(), "unit id"),
        required("sample", pa.string(), "top: strongest; quantile: spread over firing tokens; silent: does not fire"),
        required("rank", pa.int32(), "0-based within unit and sample; top and quantile by falling value"),
        required("rollout_id", pa.int32(), "rollout of the token"),
        required("position", pa.int32(), "the token the context is about"),
        required("value", pa.float32(), "activation there, in the unit's own polarity; 0 when silent"),
        required("start", pa.int32(), "position of the window's first token"),
        required("token_ids", pa.list_(pa.int32()), "tokens of the window, cut at the rollout's ends"),
        required("values", pa.list_(pa.float32()), "activation at each of them; 0 where the unit does not fire"),
    ]
)
SCHEMAS = {"max_activating_contexts": {UNITS_FILE: UNITS, CONTEXTS_FILE: CONTEXTS}}
"""Asset -> file -> its columns."""


def per_unit(contexts: Path, column: str) -> dict[str, Any]:
    """Unit -> its value in a column of the units table, in the table's order."""
    table = pq.read_table(contexts / UNITS_FILE, columns=["unit", column])
    return dict(zip(table["unit"].to_pylist(), table[column].to_pylist(), strict=True))


def top_contexts(contexts: Path, count: int) -> dict[str, list[dict[str, Any]]]:
    """Unit -> rollout_id, position and value of its `count` strongest contexts, by rank."""
    columns = ["unit", "rollout_id", "position", "value"]
    wanted = (pc.field("sample") == "top") & (pc.field("rank") < count)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(contexts / CONTEXTS_FILE, columns=columns, filters=wanted).to_pylist():
        found.setdefault(row["unit"], []).append(row)
    return found


class Contexts(Artifact):
    """The folder of a `max_activating_contexts`."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises FileNotFoundError when the folder lacks the units."""
        found = cls(path)
        _ = found._units
        return found

    @cached_property
    def _units(self) -> pa.Table:
        return pq.read_table(self.path / UNITS_FILE, schema=UNITS)

    def table(self) -> pa.Table:
        """One row per unit, see `UNITS`."""
        return self._units

    def units(self) -> list[Unit]:
        """Every unit, in the order of the files."""
        return [parse_unit(text) for text in self._units["unit"].to_pylist()]

    def of(self, unit_id: str, sample: Sample) -> pa.Table:
        """A unit's contexts of one sample, by rank; reads only the row groups that hold the unit.

        Raises:
            BadInput: when there is no such unit or sample; a unit that never fires has no context of the first two.
        """
        if sample not in SAMPLES:
            raise BadInput(f"there is no sample '{sample}'; known are {', '.join(SAMPLES)}")
        if unit_id not in self._units["unit"].to_pylist():
            raise BadInput(f"there is no unit '{unit_id}' in {self.path}: `table()` names every one")
        wanted = (pc.field("unit") == unit_id) & (pc.field("sample") == sample)
        return pq.read_table(self.path / CONTEXTS_FILE, schema=CONTEXTS, filters=wanted)
