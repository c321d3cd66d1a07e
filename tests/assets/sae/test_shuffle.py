"""Every training token once per epoch, in an order set by the seed, whatever the window, and from any step on."""

import numpy as np
import pytest
import torch

from assets.sae.config import SaeConfig
from assets.sae.shuffle import MIXED_GROUPS, Census, Order, Rows, entering_columns, split_rollouts
from resources.errors import BadInput
from resources.shards import Shards
from tests.claimed_gpu import claimed_gpu
from tests.shard_builders import build_shards

ROLLOUTS = 11


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Each token's state is (its rollout, its position)."""
    states = {r: np.stack([np.full(20 + r, r), np.arange(20 + r)], axis=1).astype(np.float32) for r in range(ROLLOUTS)}
    columns = ("L0.q_proj", "L0.k_proj")
    return Shards.open(build_shards(tmp_path_factory.mktemp("n") / "s", states, columns, row_group_rows=17))


def build_order(shards: Shards, window: int, batch: int = 8, seed: int = 0) -> Order:
    training = np.array([r for r in range(ROLLOUTS) if r not in (2, 5)])
    return Order(Census.take(shards).rows(training, np.arange(2)), batch, window, seed)


def expected_tokens() -> list[tuple[float, float]]:
    return sorted((float(r), float(p)) for r in range(ROLLOUTS) if r not in (2, 5) for p in range(20 + r))


def as_tokens(batches: list[torch.Tensor]) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in torch.cat(batches)]


@pytest.mark.parametrize("window", [1, 30, 100, 10_000])
@pytest.mark.parametrize("batch", [1, 8, 50])
def test_every_training_token_comes_once_per_epoch(numbered: Shards, window: int, batch: int) -> None:
    order = build_order(numbered, window, batch)
    per_epoch = order.batches_per_epoch
    epochs = [list(order.batches(e * per_epoch, (e + 1) * per_epoch)) for e in range(2)]
    for batches in epochs:
        assert sorted(as_tokens(batches)) == expected_tokens()
        sizes = [len(b) for b in batches]
        assert max(sizes) - min(sizes) <= 1
    assert batch == 50 or as_tokens(epochs[0]) != as_tokens(epochs[1])


@pytest.mark.parametrize("window", [30, 10_000])
def test_starting_at_any_step_gives_the_same_batches(numbered: Shards, window: int) -> None:
    order = build_order(numbered, window)
    whole = list(order.batches(0, 2 * order.batches_per_epoch + 3))
    for start in (1, 7, order.batches_per_epoch, order.batches_per_epoch + 5):
        for ours, theirs in zip(order.batches(start, len(whole)), whole[start:], strict=True):
            assert torch.equal(ours, theirs)


def test_the_order_is_a_function_of_the_seed(numbered: Shards) -> None:
    first, same, other = (as_tokens(list(build_order(numbered, 10_000, seed=seed).batches(0, 5))) for seed in (1, 1, 2))
    assert first == same != other


def test_one_window_mixes_tokens_of_the_whole_set(numbered: Shards) -> None:
    order = build_order(numbered, 10_000)
    rollouts = np.array([r for r, _ in as_tokens(list(order.batches(0, order.batches_per_epoch)))])
    ranks = np.argsort(np.argsort(rollouts, kind="stable"), kind="stable")
    correlation = np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]
    assert abs(correlation) < 0.2


def test_a_small_buffer_reads_no_more_than_its_size_and_one_row_group(numbered: Shards) -> None:
    order = build_order(numbered, window=40)
    for groups in order._windows(0):
        assert order.rows.counts_G[groups].sum() <= 40 + 17


@pytest.mark.parametrize("window", [30, 100, 10_000])
def test_a_device_with_memory_of_its_own_gets_the_same_batches(numbered: Shards, window: int) -> None:
    """There the next window is read while the last one is used."""
    order = build_order(numbered, window)
    with claimed_gpu():
        there = [batch.cpu() for batch in order.batches(3, 2 * order.batches_per_epoch + 3, "cuda")]
    for ours, theirs in zip(there, order.batches(3, 2 * order.batches_per_epoch + 3), strict=True):
        assert torch.equal(ours, theirs)


def test_tokens_of_one_window_are_read_once(numbered: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    order = build_order(numbered, 10_000)
    read, load = list[int](), Rows.load

    def counted(rows: Rows, group: int) -> np.ndarray:
        read.append(group)
        return load(rows, group)

    monkeypatch.setattr(Rows, "load", counted)
    assert len(list(order.batches(0, 3 * order.batches_per_epoch))) == 3 * order.batches_per_epoch
    assert sorted(read) == np.flatnonzero(order.rows.counts_G).tolist()


@pytest.mark.parametrize(("batches", "tokens"), [(1, 8), (3, 24), (10, 81), (27, 220), (28, 228), (60, 228)])
def test_a_training_has_seen_the_tokens_of_its_batches_each_once(numbered: Shards, batches: int, tokens: int) -> None:
    """Rollouts of 20 to 30 tokens but for those of 22 and 25: 228 tokens in 28 batches, cut at round(n x 228 / 28)."""
    order = build_order(numbered, 100)
    seen = {token for batch in order.batches(0, batches) for token in as_tokens([batch])}
    assert order.distinct_tokens(batches) == len(seen) == tokens


def test_held_out_rollouts_are_disjoint_and_complete() -> None:
    split = split_rollouts(np.repeat(np.arange(100) * 7, 3), 0.1, seed=3)
    assert (len(split.training), len(split.calibration), len(split.evaluation)) == (90, 5, 5)
    assert sorted([*split.training, *split.calibration, *split.evaluation]) == [7 * i for i in range(100)]
    assert not np.array_equal(split.evaluation, split_rollouts(np.arange(100) * 7, 0.1, seed=4).evaluation)


def test_a_split_needs_three_rollouts() -> None:
    assert len(split_rollouts(np.arange(3), 0.05, 0).training) == 1
    with pytest.raises(BadInput, match="hold 2 rollouts"):
        split_rollouts(np.arange(2), 0.05, 0)


def test_only_components_of_the_wanted_layers_and_projections_enter() -> None:
    columns = ("L0.q_proj", "L0.up_proj", "L1.q_proj", "L1.up_proj")
    of_layer, of_projection = {"layers": (1,)}, {"projections": ("up_proj",)}
    wanted = (({}, [0, 1, 2, 3]), (of_layer, [2, 3]), (of_projection, [1, 3]), (of_layer | of_projection, [3]))
    for knobs, expected in wanted:
        assert entering_columns(SaeConfig.model_validate(knobs), columns).tolist() == expected


@pytest.mark.parametrize("most", [1, 16, 17, 18, 34, 228, 1000])
def test_the_first_tokens_in_order_are_those_that_training_may_see(numbered: Shards, most: int) -> None:
    parts = list(build_order(numbered, 100).rows.in_order(most))
    assert [(float(a), float(b)) for part in parts for a, b in part] == expected_tokens()[:most]
    assert all(len(part) for part in parts)


def test_a_sample_is_spread_over_a_few_row_groups(numbered: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    read, load = list[np.ndarray](), Rows.load

    def noted(rows: Rows, group: int) -> np.ndarray:
        read.append(load(rows, group))
        return read[-1]

    monkeypatch.setattr(Rows, "load", noted)
    sample = build_order(numbered, 100).sample(20)
    assert len(read) == MIXED_GROUPS
    # Three of each, 20 / 8 rounded up: the first, the middle and the last that training may see of the group.
    expected = [state[at] for state in read for at in sorted({0, (len(state) - 1) // 2, len(state) - 1})]
    assert np.array_equal(sample, np.stack(expected)[:20])
