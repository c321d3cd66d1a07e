"""The ranking against a full sort, for any split of the stream, and against what the authors' tracker keeps."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.contexts.config import ContextsConfig
from assets.contexts.ranking import ROLLOUT_SHIFT, Entries, Ranking
from assets.contexts.requests import spread_over_quantiles
from assets.contexts.silence import Loudness, Pool
from assets.contexts.tally import Events, Tally, priorities, tokens_of


def entries(rows: list[tuple[int, float, int, int]]) -> Entries:
    """(unit, score, rollout, position) as columns."""
    unit, score, rollout, position = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    value = score.astype(np.float32)
    return Entries(unit.astype(np.int64), value, tokens_of(rollout.astype(np.int32), position.astype(np.int32)), value)


def full_sort(rows: list[tuple[int, float, int, int]], k: int, cap: int) -> list[tuple[int, float, int, int]]:
    kept: list[tuple[int, float, int, int]] = []
    for row in sorted(rows, key=lambda row: (row[0], -row[1], row[2], row[3])):
        of_unit = [other for other in kept if other[0] == row[0]]
        of_rollout = [other for other in of_unit if other[2] == row[2]]
        if len(of_unit) < k and not (cap and len(of_rollout) >= cap):
            kept.append(row)
    return kept


def rows_of(found: Entries) -> list[tuple[int, float, int, int]]:
    return [
        (int(unit), float(score), int(token >> ROLLOUT_SHIFT), int(token & 0xFFFFFFFF))
        for unit, score, token in zip(found.unit_N, found.score_N, found.token_N, strict=True)
    ]


STREAMS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-2, 4).map(float), st.integers(0, 3), st.integers(0, 5)),
    unique_by=lambda row: (row[0], row[2], row[3]),
    max_size=60,
)


@given(rows=STREAMS, cuts=st.lists(st.integers(0, 60), max_size=4), k=st.integers(1, 6), cap=st.integers(0, 3))
def test_parts_of_a_stream_in_any_order_merge_into_the_full_sort(
    rows: list[tuple[int, float, int, int]], cuts: list[int], k: int, cap: int
) -> None:
    merged = Ranking(3, k, cap)
    for first, last in pairwise([0, *sorted(cuts), 60]):
        part = Ranking(3, k, cap)
        for row in rows[first:last]:
            part.offer(entries([row]))
            part.best()
        merged.offer(part.best())
    assert rows_of(merged.best()) == full_sort(rows, k, cap)


def test_the_bar_never_drops_an_entry_that_ties_with_the_last_kept() -> None:
    ranking = Ranking(1, 2)
    ranking.offer(entries([(0, 5.0, 3, 0), (0, 4.0, 3, 1)]))
    assert rows_of(ranking.best()) == [(0, 5.0, 3, 0), (0, 4.0, 3, 1)]
    ranking.offer(entries([(0, 4.0, 1, 9)]))  # an earlier token with the same score, seen later
    assert rows_of(ranking.best()) == [(0, 5.0, 3, 0), (0, 4.0, 1, 9)]


def test_however_many_entries_pass_the_bar_no_more_are_held_than_the_buffer_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("assets.contexts.ranking._LEAST_BUFFER", 10)
    ranking = Ranking(1, 2)
    for place in range(50):
        ranking.offer(entries([(0, place + 1.0, 0, place)]))
        assert sum(len(part) for part in ranking._waiting) <= 10
    assert rows_of(ranking.best()) == [(0, 50.0, 0, 49), (0, 49.0, 0, 48)]


@pytest.mark.parametrize("cap", [0, 4])
def test_a_tally_of_200_000_tokens_and_500_units_equals_the_full_sort(cap: int) -> None:
    tokens, units, k, rollout_length = 200_000, 500, 64, 500
    rng = np.random.default_rng(0)
    # 8 firing units a token, activations on a grid of 2^-6, so that every unit's 64th value has ties.
    unit_N = (rng.integers(0, units, (tokens, 1)) + np.arange(8) * 61) % units
    value_N = np.round(rng.gamma(2.0, 1.0, unit_N.shape) * 64 + 1).astype(np.float32) / 64
    row_N = np.repeat(np.arange(tokens), 8)
    token_R = tokens_of(np.arange(tokens) // rollout_length, np.arange(tokens) % rollout_length)
    tally = Tally(units, ContextsConfig(k=k, cap_per_rollout=cap))
    for first in range(0, tokens, 4096):
        rows = slice(first, first + 4096)
        part = slice(first * 8, (first + 4096) * 8)
        events = Events(row_N[part] - first, unit_N[rows].ravel(), value_N[rows].ravel())
        tally.add(events, token_R[rows], priorities(token_R[rows], seed=0, stream=0))
    best = tally.top.best()
    order = np.lexsort((token_R[row_N], -value_N.ravel(), unit_N.ravel()))
    values, its_tokens = value_N.ravel()[order], token_R[row_N][order]
    edges = np.concatenate([[0], np.cumsum(np.bincount(unit_N.ravel(), minlength=units))])
    ties = 0
    for unit, (first, last) in enumerate(pairwise(edges.tolist())):
        kept = first_kept((its_tokens[first:last] >> ROLLOUT_SHIFT).tolist(), k, cap)
        mine = best.unit_N == unit
        assert np.array_equal(best.token_N[mine], its_tokens[first:last][kept])
        assert np.array_equal(best.score_N[mine], values[first:last][kept])
        ties += values[first:last][kept[-1]] == values[first:last][kept[-1] + 1]
        assert tally.count_U[unit] == last - first
        assert tally.sum_U[unit] == values[first:last].sum(dtype=np.float64)
    assert ties > 100


def first_kept(rollouts: list[int], k: int, cap: int) -> list[int]:
    """Places of the first `k`, leaving out those whose rollout stood there `cap` times before."""
    seen: dict[int, int] = {}
    kept: list[int] = []
    for place, rollout in enumerate(rollouts):
        seen[rollout] = seen.get(rollout, 0) + 1
        if not cap or seen[rollout] <= cap:
            kept.append(place)
        if len(kept) == k:
            break
    return kept


def authors_tracker(values: np.ndarray, k: int) -> np.ndarray:
    """Insertion rule of the authors' `3.1` (commit 9b103c4), from its description: kept positions, best last.

    A new maximum overwrites the old one; other insertions land a slot too high; the smallest is taken to be slot 0.
    """
    scores, places = np.full(k, -np.inf), np.full(k, -1)
    for place, value in enumerate(values):
        if value <= scores[0]:
            continue
        slot = int(np.searchsorted(scores, value))
        if slot < k:
            scores[:slot], places[:slot] = scores[1 : slot + 1].copy(), places[1 : slot + 1].copy()
        else:
            slot = k - 1
        scores[slot], places[slot] = value, place
    return places


def test_the_authors_tracker_misses_part_of_the_true_top_32_and_ours_none() -> None:
    values = np.random.default_rng(0).gamma(2.0, 1.0, 5000).astype(np.float32)
    truth = set(np.argsort(-values)[:32].tolist())
    theirs = set(authors_tracker(values, 32).tolist())
    ranking = Ranking(1, 32)
    ranking.offer(entries([(0, float(value), 0, place) for place, value in enumerate(values)]))
    ours = {position for _, _, _, position in rows_of(ranking.best())}
    assert ours == truth
    assert len(theirs & truth) / 32 < 0.75


def test_a_tally_read_back_goes_on_as_if_it_had_stayed(tmp_path: Path) -> None:
    config = ContextsConfig(k=3, quantile_samples=1)
    rng = np.random.default_rng(1)
    token_R = tokens_of(np.zeros(40, np.int32), np.arange(40))
    events = Events(np.arange(40), rng.integers(0, 2, 40), rng.random(40, dtype=np.float32))
    whole = Tally(2, config)
    whole.add(events, token_R, priorities(token_R, 0, 0))
    first = Tally(2, config)
    first.add(Events(*(part[:25] for part in vars(events).values())), token_R[:25], priorities(token_R[:25], 0, 0))
    first.save(tmp_path / "tally.npz")
    rest = Tally.load(tmp_path / "tally.npz", 2, config)
    late = Events(events.row_N[25:] - 25, events.unit_N[25:], events.value_N[25:])
    rest.add(late, token_R[25:], priorities(token_R[25:], 0, 0))
    assert rows_of(rest.top.best()) == rows_of(whole.top.best())
    assert rows_of(rest.sample.best()) == rows_of(whole.sample.best())
    assert (rest.num_tokens, rest.count_U.tolist()) == (40, whole.count_U.tolist())
    np.testing.assert_allclose(rest.sum_U, whole.sum_U)


def test_quantile_samples_are_the_middles_of_equal_shares() -> None:
    sample = entries([(0, float(value), 0, value) for value in range(1, 10)] + [(2, 5.0, 1, 1), (2, 7.0, 1, 2)])
    # Nine values from 9 down to 1 in three shares (9 8 7), (6 5 4), (3 2 1); unit 2 has fewer than three.
    assert [(unit, value) for unit, value, _, _ in rows_of(spread_over_quantiles(sample, 3))] == [
        (0, 8.0),
        (0, 5.0),
        (0, 2.0),
        (2, 7.0),
        (2, 5.0),
    ]


def test_random_priorities_are_uniform_and_differ_between_seeds_and_streams() -> None:
    token_R = tokens_of(np.repeat(np.arange(100), 1000), np.tile(np.arange(1000), 100))
    draws = [priorities(token_R, seed, stream) / (1 << 24) for seed, stream in ((0, 0), (0, 1), (1, 0))]
    for draw in draws:
        assert abs(draw.mean() - 0.5) < 0.005
        assert np.abs(np.histogram(draw, 10, (0, 1))[0] - 10_000).max() < 500
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.02


def test_a_sample_holds_the_tokens_of_the_highest_priority_whatever_their_activation() -> None:
    tally = Tally(2, ContextsConfig(k=1, quantile_samples=1))  # twice as many are sampled
    token_R = tokens_of(np.zeros(6, np.int32), np.arange(6))
    fired = [(0, 0, 9), (1, 0, 1), (2, 0, 8), (2, 1, 5), (3, 0, 7), (4, 1, 6), (5, 0, 2), (5, 1, 4)]
    row_N, unit_N, value_N = np.array(fired).T
    tally.add(Events(row_N, unit_N, value_N.astype(np.float32)), token_R, np.array([1, 6, 3, 2, 5, 4], np.float32))
    found = tally.sample.best()
    told = zip(found.unit_N.tolist(), found.token_N.tolist(), found.value_N.tolist(), strict=True)
    assert list(told) == [(0, 1, 1), (0, 5, 2), (1, 4, 6), (1, 5, 4)]


def test_priorities_are_the_leading_bits_of_splitmix64() -> None:
    """Vigna's generator from state 0 begins with e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f."""
    start = np.random.default_rng([5, 7]).integers(1 << 63, dtype=np.uint64)
    token_R = (np.arange(1, 4, dtype=np.uint64) - start).view(np.int64)
    assert priorities(token_R, seed=5, stream=7).tolist() == [0xE220A8, 0x6E789E, 0x06C45D]


def test_the_pool_is_the_same_however_the_tokens_come() -> None:
    token_R = tokens_of(np.repeat(np.arange(20), 50), np.tile(np.arange(50), 20))
    whole = Pool.draw([token_R], 64, 8, seed=3)
    parts = Pool.draw(np.split(token_R[::-1], 10), 64, 8, seed=3)
    assert np.array_equal(whole.token_P, parts.token_P)
    assert len(set(whole.token_P.tolist())) == 64


def test_firing_is_counted_within_the_radius_and_the_rollout_of_each_pool_token() -> None:
    """Rollout 1 has rows 0 to 5, rollout 2 rows 6 to 12; the unit fires at rows 2, 6 and 12, another one nowhere."""
    rollout_R = np.repeat([1, 2], [6, 7]).astype(np.int32)
    token_R = tokens_of(rollout_R, np.concatenate([np.arange(6), np.arange(7)]).astype(np.int32))
    loud = Loudness.empty(Pool(np.delete(token_R, [3, 11]), radius=2), 2)
    near = loud.neighbourhood(token_R, rollout_R)
    for rows, fired in ((slice(0, 7), [2, 6]), (slice(7, 13), [5])):
        events = Events(np.array(fired), np.zeros(len(fired), np.int64), np.ones(len(fired), np.float32))
        loud.add(near, rows, events)
    unit_n, token_n = loud.quietest(13, seed=0)
    of_unit, of_other = token_n[unit_n == 0].tolist(), token_n[unit_n == 1].tolist()
    assert set(of_unit[:2]) == set(token_R[[5, 9]].tolist())
    assert sorted(of_unit[2:]) == token_R[[0, 1, 4, 7, 8, 10]].tolist()
    assert sorted(of_other) == np.delete(token_R, [3, 11]).tolist()
