"""Every answer ever generated, by a hash of all that made it: resume, regrade and share between experiments.

A shard is one file, `<key>.parquet`, renamed into place when it is whole. Its key holds the arm's weights, the prompts,
the sampling and the back end, and nothing of the grading; so a changed grader, judge or statistic generates nothing,
and the base model answers once for all experiments.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assets.benchmarks.engine import Arm, Completion, Request
from resources.errors import BadInput
from resources.keys import digest
from resources.lock import try_hold

_FORMAT = 1
"""Raise when a back end changes what it answers to the same request."""
_DIGEST = b"answers"
"""Key of the schema's metadata with a hash of all rows: no manifest watches over these files."""


@dataclass(frozen=True)
class Shard:
    """Some of an arm's requests of one benchmark, all or none of them answered."""

    arm: Arm
    benchmark: str
    first: int
    """Index of its first request in the benchmark."""
    requests: tuple[Request, ...]
    key: str


def shards(arm: Arm, benchmark: str, requests: Sequence[Request], size: int, made_by: Sequence[object]) -> list[Shard]:
    """An arm's requests of one benchmark, cut into shards of `size`; `made_by`: settings that change the answers."""
    cut = [(first, tuple(requests[first : first + size])) for first in range(0, len(requests), size)]
    return [
        Shard(
            arm, benchmark, first, part, digest("generations", [_FORMAT, arm.version, made_by, list(map(asdict, part))])
        )
        for first, part in cut
    ]


class GenerationCache:
    """The folder of finished shards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: set[str] = set()

    def has(self, shard: Shard) -> bool:
        """Whether the shard is whole; a damaged one is removed, and so generated anew."""
        if shard.key not in self._whole and self._path(shard).exists():
            if self._answers(shard) is None:
                self._path(shard).unlink(missing_ok=True)
            else:
                self._whole.add(shard.key)
        return shard.key in self._whole

    def read(self, shard: Shard) -> list[Completion]:
        """The answers, in the order of the requests.

        Raises:
            BadInput: when the file was damaged since it was written.
        """
        answers = self._answers(shard)
        if answers is None:
            raise BadInput(f"{self._path(shard)} is missing or damaged; run again, and it is generated anew")
        return answers

    def _answers(self, shard: Shard) -> list[Completion] | None:
        """What lies in the file; None when it is not what was written."""
        try:
            table = pq.read_table(self._path(shard))
            rows = table.to_pylist()
            written = (table.schema.metadata or {}).get(_DIGEST)
        except OSError as error:
            # Parquet's own complaints have no number; too many open files, or a missing right, say nothing of the file.
            if error.errno not in (None, errno.ENOENT, errno.EIO):
                raise
            return None
        except (pa.ArrowException, ValueError):
            return None
        if written is None or written.decode(errors="replace") != digest("answers", rows):
            return None
        return [Completion(row["text"], row["num_tokens"], row["finish"]) for row in rows]

    def write(self, shard: Shard, answers: Sequence[Completion]) -> None:
        """Keep a whole shard, at once or not at all."""
        assert len(answers) == len(shard.requests)
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f".{shard.key}.{os.getpid()}"
        rows = [asdict(answer) for answer in answers]
        table = pa.Table.from_pylist(rows).replace_schema_metadata({_DIGEST: digest("answers", rows)})
        pq.write_table(table, unfinished, compression="zstd")
        unfinished.replace(self._path(shard))

    @contextmanager
    def claim(self, shard: Shard) -> Iterator[bool]:
        """Whether this process may generate the shard now: nobody else is at it, and it is still missing."""
        path = self._folder / f"{shard.key}.lock"
        lock = try_hold(path)
        try:
            yield lock is not None and not self.has(shard)
        finally:
            if lock is not None:
                path.unlink(missing_ok=True)
                lock.close()

    def _path(self, shard: Shard) -> Path:
        return self._folder / f"{shard.key}.parquet"
