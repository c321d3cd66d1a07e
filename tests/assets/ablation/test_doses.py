"""What is steered: units that are named or chosen, each once, and what every mode and every capture allows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from assets.ablation.adapted import AdaptedModel
from assets.ablation.artifact import SteeringEffects
from assets.ablation.catalogue import removal
from assets.ablation.config import SteeringConfig
from assets.ablation.doses import Direction, Dose, Target, _strongest, choose_targets, dose_edit, doses
from assets.ablation.measure import measure
from assets.ablation.passages import cut
from assets.dataset.artifact import S1kDataset
from assets.sae.artifact import Sae, write_sae
from resources.adapters import WEIGHTS, weight_key, write_ablated
from resources.components import components, parse_component
from resources.errors import BadInput
from resources.shards import SHARD, write_shard
from tests.assets.ablation.test_steer import run
from tests.assets.ablation.world import LENGTHS, PROMPT_TOKENS, World, build_world, copied, latent_values

DOWN = "adapter:L0.down_proj:-"
ONLY_KL = SteeringConfig(units=(DOWN,), factors=(0, 1, 2), max_tokens=20, num_problems=0)


def changed(**settings: object) -> SteeringConfig:
    return ONLY_KL.model_copy(update=settings)


def test_no_factor_at_all_is_refused_when_the_config_is_read() -> None:
    with pytest.raises(ValueError, match=r"at least 1 item"):
        SteeringConfig(factors=())


@pytest.mark.parametrize(("mode", "latents"), [("add", 0), ("scale", 1)])
def test_nothing_to_steer_is_refused_when_the_config_is_read(mode: Literal["add", "scale"], latents: int) -> None:
    with pytest.raises(ValueError, match=r"there is nothing to steer: name units, or raise strongest_components"):
        SteeringConfig(strongest_components=0, strongest_latents=latents, mode=mode)


def test_an_adapter_that_writes_nothing_is_told_where_nothing_else_is_steered(world: World, tmp_path: Path) -> None:
    write_ablated(world.adapter, tmp_path / "adapter", components(2))
    untrained = replace(world, adapter=tmp_path / "adapter")
    with pytest.raises(BadInput, match=r"every B of the adapter is 0, so no component writes anything"):
        run(untrained, tmp_path, changed(units=(), strongest_latents=0))


@pytest.fixture(scope="module")
def scaled(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaled")
    run(world, folder, changed(units=(), strongest_components=2, strongest_latents=3, mode="scale"))
    return folder


def test_scaling_chooses_components_only(scaled: Path) -> None:
    rows = SteeringEffects.open(scaled / "out").table().to_pylist()
    units = list(dict.fromkeys(row["unit"] for row in rows))
    assert [unit.split(":")[0] for unit in units] == ["adapter", "adapter"]
    assert [(row["unit"], row["factor"]) for row in rows] == [(unit, factor) for unit in units for factor in (0, 1, 2)]


def test_the_strongest_components_write_most_at_their_99th_percentile(world: World, adapted: AdaptedModel) -> None:
    states = np.concatenate([world.shards.rollout(r).state_BC for r in LENGTHS]).astype(np.float64)
    p99_C = np.quantile(np.abs(states), 0.99, axis=0, method="inverted_cdf")
    strength = {
        c: p99 * float(adapted.adapter.B[c].norm())
        for c, p99 in zip(map(parse_component, world.shards.columns), p99_C, strict=True)
    }
    wanted = sorted(strength, key=lambda c: -strength[c])
    assert _strongest(adapted, world.folder / "shards", 5) == wanted[:5]


def test_the_axis_of_a_scaled_curve_is_the_factor_on_the_activation(world: World, scaled: Path, tmp_path: Path) -> None:
    run(world, tmp_path, ONLY_KL)
    assert axes_of(scaled) == {"factor on the activation"}
    assert axes_of(tmp_path) == {"dose, x 99th percentile"}


def axes_of(folder: Path) -> set[str]:
    charts = [json.loads(path.read_text()) for path in (folder / "out" / "charts").glob("*.vl.json")]
    panels = [panel for chart in charts for line in chart["vconcat"] for panel in line["hconcat"]]
    return {layer["encoding"]["x"]["title"] for panel in panels for layer in panel.get("layer", [panel])}


@pytest.mark.parametrize(
    ("settings", "counted", "reads"),
    [
        ({}, 1, True),
        ({"strongest_latents": 3}, 3, True),
        ({"strongest_latents": 0}, 0, False),
        ({"mode": "scale"}, 0, False),
        ({"units": (DOWN,)}, 0, False),
        ({"units": (DOWN, "latent:3")}, 0, True),
    ],
)
def test_where_latents_fire_matters_only_to_those_that_are_steered(
    settings: dict[str, object], counted: int, reads: bool
) -> None:
    steering = SteeringConfig().model_copy(update=settings)
    assert (steering.chosen_latents, steering.reads_latents) == (counted, reads)


def test_a_unit_and_a_factor_that_are_written_twice_count_once(world: World, tmp_path: Path) -> None:
    twice = changed(units=("latent:3", "latent:3"), factors=(0, 1, 1), num_problems=1, samples=0, max_new_tokens=3)
    metrics = run(world, tmp_path, twice)
    rows = SteeringEffects.open(tmp_path / "out").table().to_pylist()
    found = [(row["direction"], row["factor"], row["n_continuations"]) for row in rows]
    assert found == [("unit", 0, 1), ("unit", 1, 1), ("random", 0, 1), ("random", 1, 1)]
    assert (metrics.units, metrics.n_continuations) == (["latent:3"], 4)


def test_doses_keep_the_order_in_which_factors_are_first_written() -> None:
    target = Target(DOWN, 0.5, {parse_component("L0.down_proj"): -1.0})
    found = doses([target], changed(mode="scale", factors=(2, 0, 2, 1, 0)))
    assert [dose.factor for dose in found] == [2, 0, 1]


@pytest.mark.parametrize("direction", ["unit", "random"])
def test_a_target_without_a_write_needs_no_pass(adapted: AdaptedModel, direction: Direction) -> None:
    dose = Dose(Target("latent:3", 1.5, {}), direction, 4.0)
    assert dose_edit(dose, SteeringConfig(), adapted, 42) is None


def test_a_latent_that_writes_only_where_b_is_zero_changes_nothing(world: World, tmp_path: Path) -> None:
    gone = [c for c in components(2) if c.layer == 0]
    write_ablated(world.adapter, tmp_path / "adapter", gone)
    half = copied(world, tmp_path / "world", tmp_path / "adapter")
    sae = Sae.open(half.folder / "sae")
    is_gone_D = torch.tensor([parse_component(column) in gone for column in sae.columns])
    write_sae(sae.path, replace(sae, W_dec_FD=sae.W_dec_FD * is_gone_D), {})
    metrics = run(half, tmp_path, changed(units=("latent:3",), num_problems=1, samples=0, max_new_tokens=3))
    assert [dose["kl_mean"] for dose in metrics.doses] == [0.0] * 6
    assert metrics.n_continuations == 6


def test_a_component_is_steered_where_only_replies_were_captured(replies_only: World, tmp_path: Path) -> None:
    assert run(replies_only, tmp_path, ONLY_KL).units == [DOWN]
    states = np.concatenate([replies_only.shards.rollout(r).state_BC for r in LENGTHS]).astype(np.float64)
    column = np.sort(np.abs(states[:, replies_only.shards.columns.index("L0.down_proj")]))
    assert len(column) == sum(LENGTHS.values()) - 4 * PROMPT_TOKENS
    row = SteeringEffects.open(tmp_path / "out").table().to_pylist()[0]
    assert row["p99"] == pytest.approx(column[int(np.ceil(0.99 * len(column))) - 1])


def test_a_latent_is_steered_by_how_it_fires_on_the_replies_where_they_alone_were_captured(
    replies_only: World, tmp_path: Path
) -> None:
    run(replies_only, tmp_path, changed(units=("latent:3",)))
    values = np.concatenate([latent_values(replies_only, r, 3, 20 - PROMPT_TOKENS) for r in LENGTHS])
    row = SteeringEffects.open(tmp_path / "out").table().to_pylist()[0]
    assert row["p99"] == pytest.approx(np.quantile(values[values > 0], 0.99), rel=1e-5)


def test_captured_tokens_that_are_not_the_datasets_are_told(world: World, tmp_path: Path) -> None:
    other = copied(world, tmp_path / "world")
    batch = world.shards.read_shard(0)
    batch.token_id_B[2] += 1
    write_shard(other.folder / "shards" / SHARD.format(0), batch, world.shards.columns, "tiny", 64)
    with pytest.raises(
        BadInput, match=r"captured tokens of rollout 0 are not the dataset's: compute activation_shards"
    ):
        run(other, tmp_path, changed(units=("latent:3",)))


def test_turning_a_and_b_round_and_scaling_one_against_the_other_swaps_polarities_and_nothing_else(
    world: World, tmp_path: Path
) -> None:
    """Each component by a power of two of its own, so that every product is the same to the last bit."""
    times = {c: (-1) ** i * 2.0 ** (i % 5 - 2) for i, c in enumerate(components(2))}
    adapter, folder = tmp_path / "adapter", tmp_path / "world"
    shutil.copytree(world.adapter, adapter)
    matrices = load_file(adapter / WEIGHTS)
    for c, factor in times.items():
        matrices[weight_key(c, "A")] *= factor
        matrices[weight_key(c, "B")] /= factor
    save_file(matrices, adapter / WEIGHTS)
    folder.mkdir()
    dataset = S1kDataset.open(world.folder / "dataset")
    passage = cut(0, dataset.token_ids(0), dataset.loss_mask(0), 20, "all")
    found = []
    for made, plus in ((world, "++"), (build_world(folder, world.model_folder, adapter), "+-")):
        model, shards = AdaptedModel.load(made.model, made.adapter, "cpu"), made.folder / "shards"
        units = tuple(f"adapter:{c.id}:{plus[factor < 0]}" for c, factor in times.items())
        steering = changed(units=units, factors=(2,))
        targets = choose_targets(steering, model, shards, Sae.open(made.folder / "sae"), [])
        edits = [dose_edit(dose, steering, model, 0) for dose in doses(targets, steering)]
        edits += [removal(c.id, frozenset([c]), None) for c in times]
        found.append((_strongest(model, shards, 14), measure(model, passage, edits, 128)))
    assert found[0] == found[1]
    assert min(sums.kl for sums in found[0][1]) > 0
