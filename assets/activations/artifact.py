"""Captured activations on disk: the shards, and one row of statistics per column."""

from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from resources.artifact import Artifact
from resources.columns import described
from resources.shards import SHARDS, Shards, shard_schema

STATISTICS_FILE = "statistics.parquet"


STATISTICS = pa.schema(
    [
        described("column", pa.string(), "component or neuron, in the order of `state`"),
        described("mean", pa.float32(), "mean over all tokens"),
        described("std", pa.float32(), "population standard deviation over all tokens"),
        described("min", pa.float32(), "smallest scalar"),
        described("max", pa.float32(), "largest scalar"),
        described(
            "p01", pa.float32(), "1st percentile: the smallest scalar that at least 1 % of the tokens do not exceed"
        ),
        described("p50", pa.float32(), "median, defined alike"),
        described("p99", pa.float32(), "99th percentile, defined alike"),
        described("abs_p99", pa.float32(), "99th percentile of the magnitude, defined alike"),
        described("n", pa.int64(), "tokens"),
    ]
)
_FILES = {SHARDS: shard_schema(("L0.q_proj",), ""), STATISTICS_FILE: STATISTICS}
SCHEMAS = {"activation_shards": _FILES, "neuron_shards": _FILES}
"""Asset -> file -> its columns; `state` is as long as there are components or neurons."""


class ActivationShards(Artifact):
    """The folder of an `activation_shards` or a `neuron_shards`."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Checks the shards' footers.

        Raises:
            BadInput: when a shard is missing, truncated, of another schema or from another adapter.
        """
        found = cls(path)
        _ = found.shards
        return found

    @cached_property
    def shards(self) -> Shards:
        """The states: `columns` names them, `rollout(r)` and `batches(rows)` give them."""
        return Shards.open(self.path)

    def table(self) -> pa.Table:
        """One row per column, see `STATISTICS`."""
        return pq.read_table(self.path / STATISTICS_FILE, schema=STATISTICS)
