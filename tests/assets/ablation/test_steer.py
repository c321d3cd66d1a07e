"""Doses act where and as much as they say, and continuations follow PEFT token by token."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from assets.ablation.adapted import AdaptedModel
from assets.ablation.artifact import SteeringEffects
from assets.ablation.config import SteeringConfig
from assets.ablation.continuations import Row, continue_rows
from assets.ablation.doses import Dose, Target, dose_edit
from assets.ablation.edits import ComponentEdit, Edit
from assets.ablation.figures import DOSES, _dose, dose_chart
from assets.ablation.steer import SteeringMetrics, steer
from assets.dataset.artifact import S1kDataset
from resources.components import Component
from resources.errors import BadInput
from tests.assets.ablation.world import PROMPT_TOKENS, Change, World, latent_row, latent_values, progress

GATE, DOWN = Component(1, "gate_proj"), Component(0, "down_proj")
CONFIG = SteeringConfig(
    units=("adapter:L0.down_proj:-", "latent:3"),
    factors=(0, 1, 10),
    max_tokens=20,
    num_problems=3,
    samples=2,
    max_new_tokens=6,
    batch_rows=7,
)


def run(world: World, folder: Path, config: SteeringConfig) -> SteeringMetrics:
    out, scratch = folder / "out", folder / "scratch"
    for path in (out, scratch):
        path.mkdir(parents=True, exist_ok=True)
    return steer(
        model=world.model,
        steering=config,
        **world.inputs(),
        out=out,
        scratch=scratch,
        progress=progress(),
        compute=world.compute,
    )


@pytest.fixture(scope="module")
def steered(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steered")
    run(world, folder, CONFIG)
    return folder


def rows_of(folder: Path, unit: str, direction: str = "unit") -> dict[float, dict]:
    rows = SteeringEffects.open(folder / "out").table().to_pylist()
    return {
        row["factor"]: row
        for row in rows
        if (row["unit"], row["direction"], row["decoding"]) == (unit, direction, "greedy")
    }


def from_reply_on(shift: float) -> Change:
    """Add from the token on that predicts the assistant's first one."""

    def change(state: torch.Tensor) -> torch.Tensor:
        state = state.clone()
        state[:, PROMPT_TOKENS - 1 :] += shift
        return state

    return change


def naive(world: World, changes: dict[Component, Change]) -> float:
    dataset = S1kDataset.open(world.folder / "dataset")
    ids = [dataset.token_ids(r)[:20].tolist() for r in dataset.rollout_ids]
    return float(torch.cat([world.naive(i, changes)[0][PROMPT_TOKENS - 1 : -1] for i in ids]).mean())


def test_a_component_dose_adds_factor_times_its_99th_percentile_in_its_polarity(world: World, steered: Path) -> None:
    states = np.abs(np.concatenate([world.shards.rollout(r).state_BC for r in (0, 1, 4, 7)])).astype(np.float64)
    column = np.sort(states[:, world.shards.columns.index(DOWN.id)])
    p99 = column[int(np.ceil(0.99 * len(column))) - 1]
    rows = rows_of(steered, "adapter:L0.down_proj:-")
    assert rows[1]["p99"] == pytest.approx(p99)
    for factor in (1, 10):
        wanted = naive(world, {DOWN: from_reply_on(-factor * p99)})
        assert rows[factor]["kl_mean"] == pytest.approx(wanted, rel=1e-5)
    assert rows[0]["kl_mean"] == rows[0]["ce_delta"] == 0


def test_a_latent_dose_writes_its_decoder_row(world: World, steered: Path) -> None:
    fired = np.concatenate([latent_values(world, r, 3, 20) for r in (0, 1, 4, 7)])
    p99 = float(np.quantile(fired[fired > 0], 0.99))
    row = rows_of(steered, "latent:3")[1]
    assert row["p99"] == pytest.approx(p99, rel=1e-5)
    changes = {c: from_reply_on(p99 * weight) for c, weight in latent_row(world, 3).items()}
    assert row["kl_mean"] == pytest.approx(naive(world, changes), rel=1e-5)


def test_the_random_control_pushes_the_same_matrix_as_hard_in_another_direction(adapted: AdaptedModel) -> None:
    target = Target("adapter:L1.gate_proj:+", 0.5, {GATE: 1.0})
    edit = dose_edit(Dose(target, "random", 4.0), SteeringConfig(), adapted, 42)
    assert edit is not None
    write = edit.changes[GATE].write_O
    assert write is not None
    steered = adapted.adapter.B[GATE][:, 0] * 16 * 4.0 * 0.5
    assert write.norm().item() == pytest.approx(steered.norm().item(), rel=1e-5)
    assert abs(torch.cosine_similarity(write, steered, dim=0).item()) < 0.5
    bigger = dose_edit(Dose(target, "random", 8.0), SteeringConfig(), adapted, 42)
    assert bigger is not None
    torch.testing.assert_close(bigger.changes[GATE].write_O, 2 * write)


def test_scaling_by_zero_is_ablation_and_by_one_nothing(world: World, adapted: AdaptedModel) -> None:
    target, scaling = Target("adapter:L1.gate_proj:+", 0.5, {GATE: 1.0}), SteeringConfig(mode="scale")
    gone = dose_edit(Dose(target, "unit", 0.0), scaling, adapted, 0)
    assert gone is not None
    assert gone.changes[GATE] == ComponentEdit(gain=0.0)
    assert dose_edit(Dose(target, "unit", 1.0), scaling, adapted, 0) is None


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("latent:99", "there is no latent 99: the SAE has 20"),
        ("adapter:L7.q_proj:+", "is no component of this adapter"),
    ],
)
def test_units_that_cannot_be_steered_are_named(world: World, tmp_path: Path, unit: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run(world, tmp_path, CONFIG.model_copy(update={"units": (unit,)}))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"units": ["adapter:L1.q_proj:+", "neuron:L0.3:+"]}, r"neuron:L0.3:\+ is of the base model: steer adapter:"),
        (
            {"units": ["latent:3"], "mode": "scale"},
            "latent:3 reads all layers at once, so it cannot be scaled: set mode",
        ),
    ],
)
def test_a_unit_that_no_adapter_can_be_steered_by_is_refused_before_a_run(
    knobs: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        SteeringConfig.model_validate(knobs)


def naive_greedy(world: World, prompt: list[int], shift: float, count: int) -> list[int]:
    """Without a cache: at every token a fresh full forward, changed from the last prompt token on."""

    def change(state: torch.Tensor) -> torch.Tensor:
        state = state.clone()
        state[:, len(prompt) - 1 :] += shift
        return state

    ids = list(prompt)
    for _ in range(count):
        ids.append(int(world.logits(ids, {DOWN: change})[-1].argmax()))
    return ids[len(prompt) :]


def test_greedy_continuations_equal_fresh_full_forwards_whatever_stands_beside_them(
    world: World, adapted: AdaptedModel
) -> None:
    prompts = [np.arange(40, 40 + n, dtype=np.int32) for n in (3, 9, 5)]
    shifts = (0.0, 3.0, -2.0)
    rows = [
        Row(prompt, Edit("push", {DOWN: ComponentEdit(shift=shift)}) if shift else None, None)
        for prompt in prompts
        for shift in shifts
    ]
    found = continue_rows(adapted, rows, max_new_tokens=8, temperature=1.0, ends=frozenset())
    wanted = [naive_greedy(world, prompt.tolist(), shift, 8) for prompt in prompts for shift in shifts]
    assert found == wanted
    assert len({tuple(ids) for ids in wanted[:3]}) > 1


def test_a_row_that_ended_leaves_the_others_as_they_were(adapted: AdaptedModel) -> None:
    rows = [Row(np.arange(40 + 7 * i, 46 + 7 * i, dtype=np.int32), None, 5 + i) for i in range(6)]
    long = continue_rows(adapted, rows, max_new_tokens=10, temperature=1.0, ends=frozenset())
    ends = frozenset({long[0][2], long[3][5]})
    short = continue_rows(adapted, rows, max_new_tokens=10, temperature=1.0, ends=ends)
    for full, cut in zip(long, short, strict=True):
        stop = next((i + 1 for i, token in enumerate(full) if token in ends), len(full))
        assert cut == full[:stop]
    assert {len(cut) for cut in short} != {10}


def test_sampled_rows_follow_the_softmax_at_the_temperature(world: World, adapted: AdaptedModel) -> None:
    prompt = np.arange(40, 46, dtype=np.int32)
    rows = [Row(prompt, None, seed) for seed in range(1500)]
    drawn = [ids[0] for ids in continue_rows(adapted, rows, max_new_tokens=1, temperature=0.5, ends=frozenset())]
    logits = world.logits(prompt.tolist(), {})[-1]
    # The mean log-probability of draws from a law is minus its entropy, within 4 standard errors; T = 1 is far off.
    surprise = -(logits / 0.5).log_softmax(-1)
    law, other = (logits / 0.5).softmax(-1), logits.softmax(-1)
    entropy = float((law * surprise).sum())
    error = float((law * (surprise - entropy) ** 2).sum().sqrt()) / 1500**0.5
    assert abs(float(surprise[drawn].mean()) - entropy) < 4 * error
    assert abs(float((other * surprise).sum()) - entropy) > 20 * error


def test_the_widest_charts_are_whole_in_dagsters_dialog(steered: Path) -> None:
    """In a window of 1280 pixels it is 80 % of it, with 20 pixels of padding on either side."""
    for path in (steered / "out" / "charts").glob("*.png"):
        with Image.open(path) as picture:
            assert 700 < picture.width <= 1280 * 0.8 - 2 * 20


def test_the_tables_hold_every_dose_and_every_continuation(steered: Path) -> None:
    rows = SteeringEffects.open(steered / "out").table().to_pylist()
    assert len(rows) == 2 * 2 * 3 * 2
    said = SteeringEffects.open(steered / "out").continuations().to_pylist()
    assert len(said) == 2 * 2 * 3 * 3 * (1 + 2)
    assert {row["n_continuations"] for row in rows} == {3, 6}
    unsteered = [(r["rollout_id"], r["decoding"], r["sample"], r["text"]) for r in said if r["factor"] == 0]
    assert unsteered[:9] * 4 == unsteered
    charts = {path.name for path in (steered / "out" / "charts").glob("*.png")}
    assert charts == {"dose_adapter_L0_down_proj_negative.png", "dose_latent_3.png"}


def test_the_dose_curves_show_each_decoding_beside_the_other_and_the_kl_once(steered: Path) -> None:
    rows = SteeringEffects.open(steered / "out").table().to_pylist()
    mine = [row for row in rows if row["unit"] == "latent:3"]
    panels = [len(line["hconcat"]) for line in dose_chart("latent:3", mine, DOSES["add"]).to_dict()["vconcat"]]
    assert panels == [1, 2, 2, 2]
    unread = [row | dict.fromkeys(("backtracking", "length", "accuracy")) for row in mine]
    lines = dose_chart("latent:3", unread, DOSES["add"]).to_dict()["vconcat"]
    assert [len(line["hconcat"]) for line in lines] == [1]


def test_a_dose_axis_spells_fractions_and_a_legend_tells_directions_apart_where_there_are_two(steered: Path) -> None:
    import vl_convert

    rows = SteeringEffects.open(steered / "out").table().to_pylist()
    mine = [row | {"factor": row["factor"] / 2} for row in rows if row["unit"] == "latent:3"]
    svg = vl_convert.vegalite_to_svg(dose_chart("latent:3", mine, DOSES["add"]).to_json())
    assert ">unit<" in svg
    assert ">random<" in svg
    alone = [row for row in mine if row["direction"] == "unit"]
    svg = vl_convert.vegalite_to_svg(dose_chart("latent:3", alone, DOSES["scale"]).to_json())
    assert ">0.5<" in svg
    assert ">random<" not in svg
    assert ">unit<" not in svg


def test_the_band_of_the_kl_over_two_rollouts_is_as_wide_as_students_t_of_its_logarithm() -> None:
    row = {"factor": 1.0, "kl_mean": 20.0, "kl_sem": 1.0, "n_rollouts": 2}
    point = _dose(row, "kl_mean")
    assert math.log(point["high"] / 20) == pytest.approx(math.tan(0.475 * math.pi) / 20)
    assert point["low"] * point["high"] == pytest.approx(400)
