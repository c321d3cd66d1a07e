"""Generate what is missing: processes share the shards by locks, and what a dead one leaves goes to another."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from assets.benchmarks.engine import Completion, Engine
from assets.benchmarks.generations import GenerationCache, Shard
from resources.progress import Progress

_POLL_S = 0.2


def fill(engine: Engine, shards: Sequence[Shard], cache: GenerationCache, progress: Progress) -> None:
    """Return when every shard is in the cache, whoever generated it."""
    waiting = _groups(shards, engine.interleaves)
    while waiting:
        answered = 0
        for group in waiting:
            with _claimed(cache, group) as mine:
                answered += _answer(engine, mine, cache, progress)
        waiting = [group for group in waiting if not all(map(cache.has, group))]
        if waiting and not answered:
            time.sleep(_POLL_S)


def _groups(shards: Sequence[Shard], interleaves: bool) -> list[list[Shard]]:
    """What is asked in one call: all of an arm where the back end gains from it, else a shard; base arms first."""
    if not interleaves:
        return [[shard] for shard in shards]
    arms: dict[str, list[Shard]] = {}
    for shard in shards:
        arms.setdefault(shard.arm.version, []).append(shard)
    return sorted(arms.values(), key=lambda group: str(group[0].arm.weights) != str(shards[0].arm.weights))


@contextmanager
def _claimed(cache: GenerationCache, group: Sequence[Shard]) -> Iterator[list[Shard]]:
    """Those shards of the group that are missing and that nobody else is generating."""
    with ExitStack() as held:
        yield [shard for shard in group if not cache.has(shard) and held.enter_context(cache.claim(shard))]


def _answer(engine: Engine, shards: Sequence[Shard], cache: GenerationCache, progress: Progress) -> int:
    """Ask for these shards in one call, and write each as soon as it is whole."""
    if not shards:
        return 0
    arm = shards[0].arm
    places = [(number, index) for number, shard in enumerate(shards) for index in range(len(shard.requests))]
    answers: list[dict[int, Completion]] = [{} for _ in shards]
    asked = engine.complete(arm, [shards[n].requests[i] for n, i in places])
    for done, (position, completion) in enumerate(asked, 1):
        number, index = places[position]
        answers[number][index] = completion
        if len(answers[number]) == len(shards[number].requests):
            cache.write(shards[number], [answers[number][i] for i in range(len(answers[number]))])
        benchmarks = ", ".join(dict.fromkeys(shard.benchmark for shard in shards))
        progress.step(f"{arm.name}: {benchmarks} (from {shards[0].first})", done, len(places))
    return len(places)
