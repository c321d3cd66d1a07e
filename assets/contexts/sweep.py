"""The two readings of the shards: one that tallies every token, one that reads the windows around the chosen ones.

The shards of a sweep are read in fixed spans, each with its own file in the scratch folder; processes share the spans.
Shapes: n contexts, W tokens of a window, R rows of a shard, U units.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from assets.contexts.artifact import NUM_BINS
from assets.contexts.config import ContextsConfig
from assets.contexts.requests import Requests
from assets.contexts.silence import Loudness, Pool
from assets.contexts.sources import Source, View
from assets.contexts.tally import Events, Tally, load_arrays, priorities, save_arrays, tokens_of
from resources.shards import Shards, StateBatch

MOST_SPANS = 16
"""Parts of the work: what processes share, and what a killed run does not compute again."""
_SAMPLE_STREAM = 0
_WINDOWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Sweep:
    """One folder of shards and the sources that read them."""

    shards: Shards
    sources: dict[str, Source]
    config: ContextsConfig
    scratch: Path
    tag: str
    """Names inputs and config, so that files of other ones are never taken."""

    @cached_property
    def spans(self) -> list[range]:
        """Shard numbers of each span; fixed by the number of shards."""
        count = len(self.shards.paths)
        edges = [round(i * count / min(count, MOST_SPANS)) for i in range(min(count, MOST_SPANS) + 1)]
        return [range(first, last) for first, last in pairwise(edges)]

    @cached_property
    def pool(self) -> Pool:
        """The random tokens from which silent contexts are drawn."""
        parts = (tokens_of(rollout_B, position_B) for rollout_B, position_B in self.shards.ids())
        return Pool.draw(parts, self.config.silent_pool, self.config.silent_radius, self.config.seed)

    def file(self, what: str, source: str, span: int) -> Path:
        """Where a span's result lies."""
        return self.scratch / f"{what}-{self.tag}-{source}-{span:02d}.npz"

    def tallied(self, source: str, span: int) -> tuple[Path, Path]:
        """What the first reading of a span leaves; either may be damaged later, and taken away."""
        return self.file("tally", source, span), self.file("loudness", source, span)

    def _ahead(self, span: int) -> Iterator[tuple[int, StateBatch]]:
        """(number, shard) of a span; the next one is decompressed meanwhile."""
        with ThreadPoolExecutor(1, "shard-reader") as pool:
            coming = pool.submit(self.shards.read_shard, self.spans[span][0])
            for number in self.spans[span]:
                shard = coming.result()
                if number + 1 in self.spans[span]:
                    coming = pool.submit(self.shards.read_shard, number + 1)
                yield number, shard

    def tally(self, span: int) -> bool:
        """First reading of one span: everything that `choose` needs. False: an earlier run had left all of it."""
        names = [name for name in self.sources if not all(path.exists() for path in self.tallied(name, span))]
        if not names:
            return False
        tallies = {name: Tally(len(self.sources[name].units), self.config) for name in names}
        loud = {name: Loudness.empty(self.pool, len(self.sources[name].units)) for name in names}
        for index, shard in self._ahead(span):
            token_R = tokens_of(shard.rollout_id_B, shard.position_B)
            priority_R = priorities(token_R, self.config.seed, _SAMPLE_STREAM)
            for name in names:
                near = loud[name].neighbourhood(token_R, shard.rollout_id_B)
                for rows, events in self.sources[name].view(shard, index).events():
                    tallies[name].add(events, token_R[rows], priority_R[rows])
                    loud[name].add(near, rows, events)
        for name in names:
            tally, loudness = self.tallied(name, span)
            tallies[name].save(tally)
            save_arrays(loudness, {"near": loud[name].near_PU})
        return True

    def merged(self, name: str) -> tuple[Tally, Loudness]:
        """The tallies of all spans."""
        units = len(self.sources[name].units)
        tally, loudness = Tally(units, self.config), Loudness.empty(self.pool, units)
        for span in range(len(self.spans)):
            counted, heard = self.tallied(name, span)
            tally.merge(Tally.load(counted, units, self.config))
            loudness.merge(Loudness(self.pool, load_arrays(heard)["near"]))
        return tally, loudness

    def read(self, span: int, requests: dict[str, Requests], max_U: dict[str, np.ndarray]) -> bool:
        """Second reading of one span: the windows of the chosen tokens, and the histograms; returns as `tally` does."""
        names = [name for name in self.sources if not self.file("windows", name, span).exists()]
        if not names:
            return False
        parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in names}
        counts = {name: np.zeros(len(self.sources[name].units) * NUM_BINS, np.int64) for name in names}
        for index, shard in self._ahead(span):
            for name in names:
                view = self.sources[name].view(shard, index)
                parts[name] += read_windows(shard, view, requests[name], self.config.window)
                for _, events in view.events():
                    counts[name] += np.bincount(bins(events, max_U[name]), minlength=len(counts[name]))
        for name in names:
            joined = {key: np.concatenate([part[key] for part in parts[name]]) for key in parts[name][0]}
            save_arrays(self.file("windows", name, span), {**joined, "counts": counts[name]})
        return True


def bins(events: Events, max_U: np.ndarray) -> np.ndarray:
    """unit x 20 + bin of each event; bin b holds values in (b, b + 1] twentieths of the unit's maximum."""
    share_N = events.value_N.astype(np.float64) / max_U[events.unit_N]
    bin_N = np.ceil(share_N * NUM_BINS).astype(np.int64) - 1
    return events.unit_N * NUM_BINS + np.clip(bin_N, 0, NUM_BINS - 1)


def read_windows(shard: StateBatch, view: View, requests: Requests, window: int) -> list[dict[str, np.ndarray]]:
    """The windows of those requests whose token is in the shard, a few thousand at a time.

    `index` says which requests they are; tokens and values beyond a window's `length` are 0.
    """
    token_R = tokens_of(shard.rollout_id_B, shard.position_B)
    mine = np.flatnonzero((requests.token_n >= token_R[0]) & (requests.token_n <= token_R[-1]))
    chunks = [mine[first : first + _WINDOWS_AT_ONCE] for first in range(0, max(1, len(mine)), _WINDOWS_AT_ONCE)]
    return [
        _windows(shard, view, token_R, requests.unit_n[index], requests.token_n[index], index, window)
        for index in chunks
    ]


def _windows(
    shard: StateBatch,
    view: View,
    token_R: np.ndarray,
    unit_n: np.ndarray,
    token_n: np.ndarray,
    index_n: np.ndarray,
    window: int,
) -> dict[str, np.ndarray]:
    row_n = np.searchsorted(token_R, token_n)
    rollout_n = shard.rollout_id_B[row_n]
    first_n = np.maximum(row_n - window, np.searchsorted(shard.rollout_id_B, rollout_n, "left"))
    last_n = np.minimum(row_n + window + 1, np.searchsorted(shard.rollout_id_B, rollout_n, "right"))
    width = 2 * window + 1
    row_nW = first_n[:, None] + np.arange(width)
    inside_nW = row_nW < last_n[:, None]
    return {
        "index": index_n,
        "start": shard.position_B[first_n],
        "length": last_n - first_n,
        "token_ids": np.where(inside_nW, shard.token_id_B[np.where(inside_nW, row_nW, 0)], np.int32(0)),
        "values": view.windows(unit_n, first_n, last_n, width),
    }
