"""Work shared between processes without a word between them: fixed shards, one file each, a file is a finished shard.

What a shard holds depends on the config alone, so the table is the same for any number of processes and after a kill.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assets.ablation.measure import Sums
from resources.parts import noted
from resources.progress import Progress
from resources.ranks import Rank, wait_for

SUMS = pa.schema(
    [
        ("kl", pa.float64()),
        ("ce_delta", pa.float64()),
        ("num_tokens", pa.int64()),
        ("num_targets", pa.int64()),
    ]
)


def work_through(
    names: Sequence[str], make: Callable[[int], pa.Table], folder: Path, progress: Progress, what: str
) -> list[pa.Table]:
    """Make this process's shards that are not finished, wait for the others', and read all in order of `names`.

    A process that fails is torchrun's business: it ends the others, and finished shards stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.parquet" for name in names]
    for i in Rank.here().share(len(paths)):
        if not paths[i].exists():
            with noted(paths[i]) as partial:
                pq.write_table(make(i), partial)
        progress.step(what, sum(path.exists() for path in paths), len(paths))
    wait_for(paths)
    return [pq.read_table(path) for path in paths]


def sums_table(sums: Sequence[Sums]) -> pa.Table:
    """A shard of measured edits, in the order given."""
    return pa.Table.from_pylist([s._asdict() for s in sums], schema=SUMS)
