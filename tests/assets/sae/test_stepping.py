"""A GPU's way through the steps, its kernels called instead of recorded, against a CPU's."""

import pytest
import torch

from assets.sae import stepping
from assets.sae.adam import Moments
from assets.sae.batchtopk import InputScale, measure_scale
from assets.sae.config import SaeConfig
from assets.sae.static_encode import encode
from assets.sae.static_selection import scored_above
from assets.sae.stepping import Diverged, GraphedStepping, SparseStepping, Totals, Trained, idle_room
from tests.assets.sae.conftest import Preset
from tests.assets.sae.test_sparse_step import LATENTS, TOKENS, WIDTH, K, build_weights


@pytest.fixture(autouse=True)
def called(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs exist on GPUs alone; there is room for 2, 8, 32 or all 50 latents to be dead."""
    monkeypatch.setattr(stepping, "recorded", lambda take: take)
    monkeypatch.setattr(stepping, "FEWEST_IDLE", 2)


def batches(number: int) -> list[torch.Tensor]:
    """Of two sizes, as a training's are."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(TOKENS + i % 2, WIDTH, generator=generator) for i in range(number)]


def fresh(config: SaeConfig) -> tuple[Trained, InputScale]:
    weights = build_weights(0, unit=config.decoder == "unit")
    moments = tuple(Moments.of(tensor) for tensor in weights.tensors())
    scale = measure_scale(torch.cat(batches(4)), config.input_scale)
    return Trained(weights, moments, torch.zeros(LATENTS, dtype=torch.int64)), scale


@pytest.mark.parametrize("preset", ["default", "authors"])
@pytest.mark.parametrize("per_token", [False, True])
def test_both_ways_train_alike_while_latents_die_and_are_revived(preset: Preset, per_token: bool) -> None:
    """Two batches are 75 tokens: some latents die at the very last one of 150."""
    config = SaeConfig(preset=preset, k=K, auxiliary_k=5, dead_after_tokens=150)
    found = []
    for way in (SparseStepping, GraphedStepping):
        trained, scale = fresh(config)
        taken, totals = way(config, trained, scale, None, per_token), list[Totals]()
        for batch in batches(60):
            taken.step(batch, 2e-2)
            totals.append(taken.totals())
        found.append((trained, totals[-1], [one.dead for one in totals]))
    (sparse, sparse_totals, sparse_dead), (graphed, graphed_totals, graphed_dead) = found
    assert sparse_dead == graphed_dead
    assert any(sparse_dead)
    assert graphed_totals.fvu_sum == pytest.approx(sparse_totals.fvu_sum, rel=1e-3)
    assert graphed_totals.auxiliary == pytest.approx(sparse_totals.auxiliary, rel=1e-3)
    assert graphed_totals.threshold == (None if per_token else pytest.approx(sparse_totals.threshold, rel=1e-3))
    for ours, theirs in zip(graphed.weights.tensors(), sparse.weights.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
    assert torch.equal(graphed.silent_F, sparse.silent_F)


def test_no_latent_is_revived_before_one_can_be_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 tokens of at most 38 each: in the first five steps the device need not be asked."""
    dead, idle = dead_and_idle(SaeConfig(k=K, dead_after_tokens=200), monkeypatch)
    assert not any(idle[:5])
    assert any(dead)


@pytest.mark.parametrize("dead_after", [60, 75, 200, 500])
def test_dead_latents_are_never_more_than_there_is_room_for(dead_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches are 75 tokens: a latent may be dead as soon as that."""
    dead, idle = dead_and_idle(SaeConfig(k=K, dead_after_tokens=dead_after), monkeypatch)
    assert all(number <= room for number, room in zip(dead, idle, strict=True))
    assert max(dead) > 0 and len(set(idle)) > 1


def test_the_device_is_asked_twice_in_the_time_of_a_death_how_many_may_be_dead_until_then() -> None:
    """Death takes 200 tokens, so it is asked again after 100; who has been silent for 100 is not dead before."""
    config = SaeConfig(k=K, dead_after_tokens=200)
    trained, scale = fresh(config)
    taken, idle = GraphedStepping(config, trained, scale, None, False), list[int]()
    trained.silent_F[:5] = torch.tensor([200, 101, 100, 100, 100])
    for _ in range(4):
        taken._look_for_dead(40)
        idle.append(taken._idle)
        trained.silent_F.zero_()
    assert idle == [2, 2, 2, 0]


def test_nothing_is_looked_for_where_nothing_is_revived(monkeypatch: pytest.MonkeyPatch) -> None:
    dead, idle = dead_and_idle(SaeConfig(k=K, dead_after_tokens=200, auxiliary="none"), monkeypatch)
    assert any(dead) and not any(idle)


def dead_and_idle(config: SaeConfig, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """Before each of 60 steps: how many latents are dead, and for how many there is room."""
    trained, scale = fresh(config)
    taken = GraphedStepping(config, trained, scale, None, False)
    dead, idle, finish = list[int](), list[int](), taken._finish
    monkeypatch.setattr(taken, "_finish", lambda how, room, batch: (idle.append(room), finish(how, room, batch)))
    for batch in batches(60):
        dead.append(int((trained.silent_F >= config.dead_after_tokens).sum()))
        taken.step(batch, 1e-2)
    return dead, idle


def test_rooms_for_dead_latents_are_few() -> None:
    """2, 8, 32, or all of 50 latents."""
    assert [idle_room(number, 50) for number in (1, 2, 3, 8, 9, 32, 33, 50)] == [2, 2, 8, 8, 32, 32, 50, 50]


def test_a_bound_is_carried_from_batch_to_batch_and_given_up_where_it_misleads(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SaeConfig(k=K)
    trained, scale = fresh(config)
    taken = GraphedStepping(config, trained, scale, None, False)
    hows, finish = list[str](), taken._finish
    monkeypatch.setattr(taken, "_finish", lambda how, *rest: (hows.append(how), finish(how, *rest)))
    first, second, third, *_ = batches(6)[::2]
    for batch in (first, second, 0.01 * third, third):
        taken.step(batch, 1e-3)
    assert hows == ["batch", "bounded", "batch", "batch"]


def test_a_bound_is_used_where_it_leaves_as_many_scores_as_wanted_up_to_twice_as_many() -> None:
    """Of 20 scores 4 are wanted."""
    config = SaeConfig(k=2)
    taken = GraphedStepping(config, *fresh(config), None, False)
    scores = torch.arange(20.0).view(2, 10)
    encoded = encode(config, build_weights(0, unit=True), batches(1)[0], None)
    hows = [
        taken._selection(encoded._replace(scored=scored_above(scores, torch.tensor(19.0 - above), 4)), 4)
        for above in (0, 3, 4, 8, 9)
    ]
    assert hows == ["batch", "batch", "bounded", "bounded", "batch"]


def test_a_batch_that_activates_nothing_leaves_the_threshold_where_it_is() -> None:
    config = SaeConfig(k=K)
    trained, scale = fresh(config)
    taken = GraphedStepping(config, trained, scale, 5.0, False)
    taken.step(batches(1)[0], 0.0)
    before = taken.totals().threshold
    trained.weights.b_enc_F.fill_(-1000.0)
    taken.step(batches(1)[0], 0.0)
    assert taken.totals().threshold == before


def test_a_threshold_goes_on_from_the_checkpoints() -> None:
    config, found = SaeConfig(k=K), list[float | None]()
    for start in (None, 5.0):
        trained, scale = fresh(config)
        taken = GraphedStepping(config, trained, scale, start, False)
        assert taken.totals().threshold == start
        taken.step(batches(1)[0], 0.0)
        found.append(taken.totals().threshold)
    first, moved = found
    assert first is not None and first > 0
    assert moved == pytest.approx(0.99 * 5 + 0.01 * first)


def test_a_loss_that_is_not_finite_is_told_with_the_next_totals() -> None:
    config = SaeConfig(k=K)
    trained, scale = fresh(config)
    taken = GraphedStepping(config, trained, scale, None, False)
    taken.step(torch.full((TOKENS, WIDTH), torch.nan), 1e-3)
    taken.step(batches(1)[0], 1e-3)
    with pytest.raises(Diverged):
        taken.totals()
