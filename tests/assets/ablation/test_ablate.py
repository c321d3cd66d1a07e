"""Every number of the table equals the naive definition, and stays the same however the work is cut."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import vl_convert

from assets.ablation.ablate import AblationMetrics, ablate
from assets.ablation.artifact import AblationKl
from assets.ablation.config import AblationConfig
from assets.ablation.figures import cumulative_curve, interaction_bars
from assets.ablation.passages import cut, open_passages
from assets.dataset.artifact import TOKEN_SCHEMA, TOKENS, S1kDataset
from resources.components import Component, components, parse_component
from resources.errors import BadInput
from resources.progress import Progress
from tests.assets.ablation.world import Change, World, copied, pooled

EVERY = components(2)
MAX_TOKENS = 20


def run(
    world: World, folder: Path, config: AblationConfig, say: Callable[[str], None] = lambda _: None
) -> AblationMetrics:
    out, scratch = folder / "out", folder / "scratch"
    for path in (out, scratch):
        path.mkdir(parents=True, exist_ok=True)
    return ablate(
        model=world.model,
        ablation=config,
        **world.adapter_inputs(),
        out=out,
        scratch=scratch,
        progress=Progress(say, interval_s=0.0),
        compute=world.compute,
    )


def table(folder: Path) -> pa.Table:
    return AblationKl.open(folder / "out").table()


def zeroed(found: list[Component]) -> dict[Component, Change]:
    return dict.fromkeys(found, torch.zeros_like)


def members(row: dict) -> list[Component]:
    layers = {"L0-L0": [0], "L1-L1": [1]}.get(row["unit"], [0, 1])
    chosen = {
        "component": lambda c: c.id == row["unit"],
        "layer": lambda c: c.layer == row["layer"],
        "projection": lambda c: c.projection == row["projection"],
        "attention": lambda c: c.projection[0] in "qkvo",
        "mlp": lambda c: c.projection[0] in "gud",
        "group": lambda c: c.layer in layers,
        "all": bool,
    }[row["unit_kind"]]
    return [c for c in EVERY if chosen(c)]


@pytest.fixture(scope="module")
def zero(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    run(world, folder, AblationConfig(max_tokens=MAX_TOKENS, group_size=1, greedy_steps=2))
    return folder


def test_every_part_equals_a_fresh_full_forward_with_a_float64_softmax(world: World, zero: Path) -> None:
    rows = [row for row in table(zero).to_pylist() if row["unit_kind"] != "greedy"]
    assert len(rows) == 14 + 2 + 7 + 2 + 2 + 1
    for row in rows:
        kl, rise, _ = pooled(world, MAX_TOKENS, lambda _r, row=row: zeroed(members(row)))
        assert row["kl_mean"] == pytest.approx(kl, rel=1e-5), row["unit"]
        assert row["ce_delta"] == pytest.approx(rise, rel=1e-5, abs=1e-6), row["unit"]
        assert row["n_tokens"] == 20 + 17 + 20 + 12


def test_the_sums_of_every_rollout_pool_to_the_table(world: World, zero: Path) -> None:
    rollouts = pq.read_table(zero / "out" / "rollouts.parquet").to_pylist()
    for row in (row for row in table(zero).to_pylist() if row["unit_kind"] != "greedy"):
        mine = [one for one in rollouts if (one["unit_kind"], one["unit"]) == (row["unit_kind"], row["unit"])]
        assert [(one["rollout_id"], one["n_tokens"], one["n_targets"]) for one in mine] == [
            (0, 20, 19), (1, 17, 16), (4, 20, 19), (7, 12, 11)
        ]  # fmt: skip
        assert sum(one["kl_sum"] for one in mine) / 69 == pytest.approx(row["kl_mean"]), row["unit"]
        assert sum(one["ce_delta_sum"] for one in mine) / 65 == pytest.approx(row["ce_delta"]), row["unit"]


def test_the_greedy_order_takes_the_worst_layer_first_and_ends_at_the_base_model(zero: Path) -> None:
    rows = {(row["unit_kind"], row["unit"]): row for row in table(zero).to_pylist()}
    steps = [row for row in table(zero).to_pylist() if row["unit_kind"] == "greedy"]
    worst = max(("L0", "L1"), key=lambda layer: rows["layer", layer]["kl_mean"])
    assert [row["step"] for row in steps] == [1, 2]
    assert steps[0]["unit"] == worst
    assert steps[0]["kl_mean"] == pytest.approx(rows["layer", worst]["kl_mean"], rel=1e-5)
    assert steps[1]["kl_mean"] == pytest.approx(rows["all", "all"]["kl_mean"], rel=1e-6)


def test_mean_ablation_puts_the_mean_over_captured_tokens(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, AblationConfig(max_tokens=MAX_TOKENS, group_size=2, replacement="mean"))
    states = np.concatenate([world.shards.rollout(r).state_BC for r in (0, 1, 4, 7)]).astype(np.float64)
    means = dict(zip(world.shards.columns, states.mean(0), strict=True))
    for row in table(tmp_path).to_pylist():
        if row["unit_kind"] in ("component", "attention", "all"):
            changes = {c: lambda s, m=means[c.id]: torch.full_like(s, m) for c in members(row)}
            assert row["kl_mean"] == pytest.approx(pooled(world, MAX_TOKENS, lambda _r, c=changes: c)[0], rel=1e-5)


def test_assistant_positions_are_those_that_predict_an_assistants_token(world: World, tmp_path: Path) -> None:
    config = AblationConfig(max_tokens=MAX_TOKENS, positions="assistant", num_rollouts=1, components=("L1.up_proj",))
    run(world, tmp_path, config)
    row = table(tmp_path).to_pylist()[0]
    shard = AblationKl.open(tmp_path / "out").path / "rollouts.parquet"
    r = pq.read_table(shard)["rollout_id"][0].as_py()
    ids = S1kDataset.open(world.folder / "dataset").token_ids(r)[:MAX_TOKENS].tolist()
    kl = world.naive(ids, zeroed([parse_component("L1.up_proj")]))[0][5:-1]
    assert row["n_tokens"] == len(ids) - 6
    assert row["kl_mean"] == pytest.approx(float(kl.mean()), rel=1e-5)
    assert row["kl_sem"] is None


def test_a_rollout_whose_prompt_fills_the_first_tokens_leaves_the_others_as_they_are(
    world: World, tmp_path: Path
) -> None:
    other = copied(world, tmp_path / "world")
    begin_reply_at(other, 1, 15)
    run(other, tmp_path, AblationConfig(max_tokens=12, positions="assistant", components=("L1.up_proj",)))
    row = table(tmp_path).to_pylist()[0]
    dataset, changes = S1kDataset.open(world.folder / "dataset"), zeroed([parse_component("L1.up_proj")])
    kls = [world.naive(dataset.token_ids(r)[:12].tolist(), changes)[0][5:-1] for r in (0, 4, 7)]
    assert row["kl_mean"] == pytest.approx(float(torch.cat(kls).mean()), rel=1e-5)
    assert (row["n_tokens"], row["n_rollouts"]) == (3 * 6, 3)


def begin_reply_at(world: World, rollout: int, start: int) -> None:
    path = world.folder / "dataset" / TOKENS
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        if row["rollout_id"] == rollout:
            row |= {"loss": row["position"] >= start, "role": 2 if row["position"] >= start else 1}
    pq.write_table(pa.Table.from_pylist(rows, schema=TOKEN_SCHEMA), path)


@pytest.mark.parametrize(
    ("change", "charts"),
    [
        ({"components": ()}, {"figure_3a_layers"}),
        (
            {"components": tuple(c.id for c in EVERY if c.layer == 0), "group_size": 2},
            {"figure_3a_layers", "figure_3b_components", "projection_means"},
        ),
    ],
)
def test_a_figure_without_anything_to_show_is_left_out(
    world: World, tmp_path: Path, change: dict[str, object], charts: set[str]
) -> None:
    run(world, tmp_path, AblationConfig(max_tokens=MAX_TOKENS).model_copy(update=change))
    assert {path.stem for path in (tmp_path / "out" / "charts").glob("*.png")} == charts


def test_the_table_and_its_charts_do_not_depend_on_how_the_work_is_cut(
    world: World, zero: Path, tmp_path: Path
) -> None:
    config = AblationConfig(max_tokens=MAX_TOKENS, group_size=1, greedy_steps=2, slices=7)
    run(world, tmp_path, config)
    mine, other = table(tmp_path).to_pydict(), table(zero).to_pydict()
    assert mine["unit"] == other["unit"]
    np.testing.assert_allclose(mine["kl_mean"], other["kl_mean"], rtol=1e-5)
    charts = {path.name for path in (zero / "out" / "charts").glob("*.png")}
    assert charts == {
        f"{name}.png"
        for name in ("figure_3a_layers", "figure_3b_components", "projection_means", "interactions", "cumulative")
    }


def test_interactions_compare_a_group_with_the_sum_of_its_components(zero: Path) -> None:
    kl = {(row["unit_kind"], row["unit"]): row["kl_mean"] for row in table(zero).to_pylist()}
    rows = {row["unit"]: row for row in AblationKl.open(zero / "out").interactions().to_pylist()}
    parts = sum(kl["component", c.id] for c in EVERY if c.layer == 1)
    assert rows["L1"]["kl_sum_of_parts"] == pytest.approx(parts)
    assert rows["L1"]["interaction"] == pytest.approx(kl["layer", "L1"] - parts)


@pytest.mark.parametrize(("sign", "strongest"), [(-1, "rgb(178, 24, 43)"), (1, "rgb(33, 102, 172)")])
def test_the_colour_of_an_interaction_says_its_sign_also_where_all_have_one(sign: int, strongest: str) -> None:
    rows = [{"unit": f"L{i}", "interaction": sign * i, "kl_mean": 3.0, "kl_sum_of_parts": 2.0} for i in (1, 2)]
    drawn = vl_convert.vegalite_to_svg(interaction_bars(rows).to_json())
    weaker, most = re.findall(r'aria-roledescription="bar"[^>]*fill="([^"]+)"', drawn)
    assert most == strongest
    assert weaker not in (strongest, "rgb(247, 247, 247)")


@pytest.mark.parametrize("steps", [2, 3, 6])
def test_the_cumulative_curve_names_every_step_once(steps: int) -> None:
    rows = [{"step": step, "unit": f"L{step}", "kl_mean": 0.5 * step} for step in range(1, steps + 1)]
    drawn = vl_convert.vegalite_to_svg(cumulative_curve(rows).to_json())
    (axis,) = re.findall(r'aria-label="X-axis.*?(?=aria-label="Y-axis)', drawn, re.DOTALL)
    assert re.findall(r"<text[^>]*>(\d[^<]*)</text>", axis) == [str(row["step"]) for row in rows]


def test_each_round_of_the_greedy_order_counts_its_own_work(world: World, tmp_path: Path) -> None:
    lines: list[str] = []
    run(world, tmp_path, AblationConfig(max_tokens=MAX_TOKENS, greedy_steps=2, slices=1), lines.append)
    counted = [line.partition("/4")[0] for line in lines]
    assert counted == [f"ablating {what} {i}" for what in ("parts", "greedy-1", "greedy-2") for i in (1, 2, 3, 4)]


def test_finished_shards_are_not_made_again(world: World, tmp_path: Path) -> None:
    config = AblationConfig(max_tokens=MAX_TOKENS, slices=2)
    first = run(world, tmp_path, config)
    shards = sorted((tmp_path / "scratch" / "parts").glob("*.parquet"))
    assert len(shards) == 4 * 2
    shards[3].unlink()
    times = {path: path.stat().st_mtime_ns for path in shards if path.exists()}
    assert run(world, tmp_path, config) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_rollout_of_one_token_and_passages_without_a_scored_token_are_refused(world: World) -> None:
    with pytest.raises(BadInput, match=r"rollout 3 has 1 token\(s\), KL needs 2 or more"):
        cut(3, np.array([7]), np.array([True]), 2048, "all")
    dataset = S1kDataset.open(world.folder / "dataset")
    with pytest.raises(BadInput, match="no assistant token stands in the first 3 tokens"):
        open_passages(dataset, num_rollouts=4, max_tokens=3, seed=0, positions="assistant")


def test_a_component_that_does_not_exist_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"adapter has no L9\.up_proj; it has L0\.q_proj to L1\.down_proj"):
        run(world, tmp_path, AblationConfig(components=("L9.up_proj",)))
