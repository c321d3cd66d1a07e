"""Captured activations on disk: the shards, and one row of statistics per column."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from resources.shards import Shards

STATISTICS_FILE = "statistics.parquet"


def _number(name: str, description: str) -> pa.Field:
    return pa.field(name, pa.float32(), metadata={"description": description})


STATISTICS = pa.schema(
    [
        pa.field("column", pa.string(), metadata={"description": "component or neuron, in the order of `state`"}),
        _number("mean", "mean over all tokens"),
        _number("std", "population standard deviation over all tokens"),
        _number("min", "smallest scalar"),
        _number("max", "largest scalar"),
        _number("p01", "1st percentile: the smallest scalar that at least 1 % of the tokens do not exceed"),
        _number("p50", "median, defined alike"),
        _number("p99", "99th percentile, defined alike"),
        _number("abs_p99", "99th percentile of the magnitude, defined alike"),
        pa.field("n", pa.int64(), metadata={"description": "tokens"}),
    ]
)


@dataclass(frozen=True)
class ActivationShards:
    """The folder of an `activation_shards` or a `neuron_shards`."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "ActivationShards":
        """Checks the shards' footers.

        Raises:
            BadInput: when a shard is missing, truncated, of another schema or from another adapter.
        """
        found = cls(path)
        _ = found.shards
        return found

    @cached_property
    def shards(self) -> Shards:
        """The states themselves."""
        return Shards.open(self.path)

    def table(self) -> pa.Table:
        """One row per column, see `STATISTICS`."""
        return pq.read_table(self.path / STATISTICS_FILE, schema=STATISTICS)
