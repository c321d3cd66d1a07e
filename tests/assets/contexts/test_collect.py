"""Contexts of a small world against brute force over every unit and token, from the definition."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from assets.contexts.artifact import SAMPLES
from resources.errors import BadInput
from resources.progress import Progress
from tests.shard_builders import build_dataset, build_shards

if TYPE_CHECKING:
    from tests.assets.contexts.conftest import World

Series = dict[int, np.ndarray]
"""Rollout id -> activation of one unit at each position, 0 where it does not fire."""


def brute_force(world: "World", firing_fraction: float = 0.5) -> dict[str, Series]:
    """Every unit's activations in its own polarity."""
    units: dict[str, Series] = {}
    for kind, states in (("adapter", world.states), ("neuron", world.neurons)):
        every = np.concatenate(list(states.values())).astype(np.float64)
        quantiles = np.quantile(np.abs(every), 0.99, axis=0, method="inverted_cdf")
        limit = (quantiles * firing_fraction).astype(np.float16)
        names = world.sae.columns if kind == "adapter" else tuple(f"L0.{i}" for i in range(every.shape[1]))
        for column, name in enumerate(names):
            for sign, factor in (("+", 1), ("-", -1)):
                own = {r: factor * x[:, column].astype(np.float32) for r, x in states.items()}
                units[f"{kind}:{name}:{sign}"] = {r: np.where(a > limit[column], a, 0) for r, a in own.items()}
    for latent in range(world.sae.d_sae):
        units[f"latent:{latent}"] = {
            r: (lambda z: np.where(z > world.sae.threshold_F[latent].item(), z, 0))(
                (torch.from_numpy(x).float() @ world.sae.W_enc_DF[:, latent]).numpy()
            )
            for r, x in world.states.items()
        }
    return units


def ranked(series: Series, cap: int = 0) -> list[tuple[float, int, int]]:
    """(value, rollout, position) of all firing tokens, strongest first, ties by rollout and position, capped."""
    fired = [(float(v), r, t) for r, a in series.items() for t, v in enumerate(a) if v > 0]
    fired.sort(key=lambda one: (-one[0], one[1], one[2]))
    seen: dict[int, int] = {}
    kept = []
    for one in fired:
        seen[one[1]] = seen.get(one[1], 0) + 1
        if not cap or seen[one[1]] <= cap:
            kept.append(one)
    return kept


@pytest.mark.parametrize("cap", [0, 1, 2])
def test_top_contexts_are_those_of_a_full_sort(world: "World", tmp_path: Path, cap: int) -> None:
    found, _ = world.collect(tmp_path, cap_per_rollout=cap)
    expected = brute_force(world)
    assert [unit.id for unit in found.units()] == list(expected)
    for unit, series in expected.items():
        rows = found.of(unit, "top").to_pylist()
        assert [(row["value"], row["rollout_id"], row["position"]) for row in rows] == ranked(series, cap)[:5], unit
        assert [row["rank"] for row in rows] == list(range(len(rows)))


def test_counts_sums_and_histograms_are_those_of_the_definition(world: "World", tmp_path: Path) -> None:
    found, metrics = world.collect(tmp_path)
    for row, (unit, series) in zip(found.table().to_pylist(), brute_force(world).items(), strict=True):
        fired = np.array([value for value, _, _ in ranked(series)])
        assert (row["unit"], row["n_tokens"], row["n_fired"]) == (unit, 151, len(fired))
        assert row["density"] == pytest.approx(len(fired) / 151)
        assert row["sum"] == pytest.approx(fired.sum())
        assert row["max"] == (fired.max() if len(fired) else 0)
        top = fired.max() if len(fired) else 1
        edges = np.arange(21) / 20
        share = fired / top
        assert row["histogram"] == [((lo < share) & (share <= hi)).sum() for lo, hi in pairwise(edges)]
    assert metrics is not None
    assert metrics.tokens == 151
    for told in metrics.kinds:
        mine = [row for row in found.table().to_pylist() if row["kind"] == told["kind"]]
        assert (told["units"], told["never fire"]) == (len(mine), sum(row["n_fired"] == 0 for row in mine))
        assert told["median density"] == np.median([row["density"] for row in mine])
    assert [told["kind"] for told in metrics.kinds] == ["adapter", "neuron", "latent"]
    assert sum(int(told["contexts"]) for told in metrics.kinds) == metrics.contexts
    assert metrics.silent_units == sum(not ranked(series) for series in brute_force(world).values()) >= 2


def test_windows_hold_the_rollouts_tokens_and_the_units_own_activations(
    world: "World", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("collect._ROWS_WRITTEN", "sweep._WINDOWS_AT_ONCE", "sources.BLOCK_CELLS", "sources.ENCODED_ROWS"):
        monkeypatch.setattr(f"assets.contexts.{name}", 20)
    found, metrics = world.collect(tmp_path)
    seen = 0
    for unit, series in brute_force(world).items():
        for sample in SAMPLES:
            for row in found.of(unit, sample).to_pylist():
                seen += 1
                rollout, position = row["rollout_id"], row["position"]
                start, stop = max(0, position - 4), min(len(series[rollout]), position + 5)
                assert row["start"] == start
                assert row["token_ids"] == world.tokens[rollout][start:stop].tolist()
                np.testing.assert_allclose(row["values"], series[rollout][start:stop], rtol=1e-6)
                assert row["values"][position - start] == row["value"]
    assert metrics is not None
    assert metrics.contexts == seen


@pytest.mark.parametrize(
    ("unit", "sample", "said"),
    [
        ("L0.q_proj", "top", "there is no unit 'L0.q_proj'"),
        ("latent:99999", "top", "there is no unit 'latent:99999'"),
        ("latent:0", "strongest", "there is no sample 'strongest'; known are top, quantile, silent"),
    ],
)
def test_a_unit_or_sample_that_is_not_there_is_no_empty_table(
    world: "World", tmp_path: Path, unit: str, sample: Any, said: str
) -> None:
    found, _ = world.collect(tmp_path)
    with pytest.raises(BadInput, match=re.escape(said)):
        found.of(unit, sample)


def test_quantile_samples_fire_and_fall_silent_samples_do_not_fire(world: "World", tmp_path: Path) -> None:
    found, _ = world.collect(tmp_path)
    for unit, series in brute_force(world).items():
        quantile = found.of(unit, "quantile").to_pylist()
        assert len(quantile) == min(3, len(ranked(series)))
        values = [row["value"] for row in quantile]
        assert values == sorted(values, reverse=True)
        assert all(series[row["rollout_id"]][row["position"]] == row["value"] > 0 for row in quantile)
        silent = found.of(unit, "silent").to_pylist()
        places = {(row["rollout_id"], row["position"]) for row in silent}
        assert len(places) == len(silent) == min(4, 151 - len(ranked(series)))
        assert all(series[r][t] == 0 for r, t in places)
        quiet = {(r, t) for r, a in series.items() for t in range(len(a)) if not a[max(0, t - 1) : t + 2].any()}
        assert len(places & quiet) == min(4, len(quiet)), "quiet surroundings come first"


def test_the_window_may_be_the_token_alone_and_samples_may_be_left_out(world: "World", tmp_path: Path) -> None:
    found, _ = world.collect(tmp_path, window=0, quantile_samples=0, silent_samples=0)
    rows = found.of("adapter:L0.q_proj:-", "top").to_pylist()
    assert [len(row["values"]) for row in rows] == [1] * 5
    assert [row["values"][0] for row in rows] == [row["value"] for row in rows]
    assert found.of("adapter:L0.q_proj:-", "quantile").num_rows == found.of("latent:0", "silent").num_rows == 0


def test_a_lower_firing_fraction_lets_more_tokens_fire(world: "World", tmp_path: Path) -> None:
    found, _ = world.collect(tmp_path, firing_fraction=0)
    expected = brute_force(world, firing_fraction=0)
    counts = dict(zip(found.table()["unit"].to_pylist(), found.table()["n_fired"].to_pylist(), strict=True))
    assert counts == {unit: len(ranked(series)) for unit, series in expected.items()}


def test_spans_finished_before_a_kill_are_not_read_again(world: "World", tmp_path: Path) -> None:
    world.collect(tmp_path / "whole")
    world.collect(tmp_path / "killed")
    scratch = tmp_path / "killed/scratch"
    kept = [path for path in scratch.glob("tally-*") if "-01.npz" not in path.name]
    for path in set(scratch.iterdir()) - set(kept) - set(scratch.glob("loudness-*-0[023456789].npz")):
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in kept}
    world.collect(tmp_path / "killed")
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert files(tmp_path / "killed/out") == files(tmp_path / "whole/out")


@pytest.mark.parametrize("lost", ["tally", "loudness"])
def test_a_file_of_a_span_that_was_damaged_and_taken_away_is_made_again(
    world: "World", tmp_path: Path, lost: str
) -> None:
    world.collect(tmp_path / "whole")
    world.collect(tmp_path / "damaged")
    scratch = tmp_path / "damaged/scratch"
    for path in (*scratch.glob("requests-*"), *scratch.glob("windows-*"), next(scratch.glob(f"{lost}-*"))):
        path.unlink()
    world.collect(tmp_path / "damaged")
    assert files(tmp_path / "damaged/out") == files(tmp_path / "whole/out")


def test_spans_that_an_earlier_run_left_do_not_count_for_the_time_left(
    world: "World", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, tuple[int, int]] = {}

    def step(_: Progress, what: str, done: int, total: int, found: int) -> None:
        made[what] = (total - done, total - found)

    monkeypatch.setattr(Progress, "step", step)
    world.collect(tmp_path)
    assert sorted(made.values()) == [(0, 3), (0, 3), (0, 6), (0, 6)]
    for kind in ("loudness", "windows"):
        for path in (tmp_path / "scratch").glob(f"{kind}-*-01.npz"):
            path.unlink()
    world.collect(tmp_path)
    assert list(made.values()) == [(0, 1)] * 4


def test_an_sae_of_other_components_is_refused(world: "World", tmp_path: Path) -> None:
    from dataclasses import replace

    build_shards(tmp_path / "states", world.states, tuple(f"L9.{c[3:]}" for c in world.sae.columns), world.tokens)
    for name in ("dataset", "neurons", "sae"):
        (tmp_path / name).symlink_to(world.folder / name)
    with pytest.raises(BadInput, match="other components"):
        replace(world, folder=tmp_path).collect(tmp_path / "run")


def test_shards_of_a_rollout_that_the_dataset_has_not_are_refused(world: "World", tmp_path: Path) -> None:
    from dataclasses import replace

    build_dataset(tmp_path / "dataset", {r: ids for r, ids in world.tokens.items() if r != 8})
    for name in ("states", "neurons", "sae"):
        (tmp_path / name).symlink_to(world.folder / name)
    with pytest.raises(BadInput, match="rollout 8 of the activation shards is not in the dataset"):
        replace(world, folder=tmp_path).collect(tmp_path / "run")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


RANKS = """
import json, sys
from pathlib import Path
from assets.contexts.collect import collect
from assets.contexts.config import ContextsConfig
from resources.compute import ComputeConfig
from resources.progress import Progress
world, folder = map(Path, json.loads(sys.argv[1]))
collect(
    contexts=ContextsConfig(k=5, window=4, quantile_samples=3, silent_samples=4, silent_radius=1),
    s1k_dataset=world / "dataset", activation_shards=world / "states", neuron_shards=world / "neurons",
    batchtopk_sae=world / "sae", out=folder / "out", scratch=folder / "scratch",
    progress=Progress(lambda _: None), compute=ComputeConfig(profile="cpu"),
)
"""


def test_two_processes_write_the_same_bytes_as_one(world: "World", tmp_path: Path) -> None:
    world.collect(tmp_path / "one")
    for name in ("out", "scratch"):
        (tmp_path / "two" / name).mkdir(parents=True)
    arguments = json.dumps([str(world.folder), str(tmp_path / "two")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, arguments], env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert files(tmp_path / "two/out") == files(tmp_path / "one/out")
