"""Captured scalars against PEFT's own modules at batch 1, against A·x by hand, and over kills and process counts."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from assets.activations.artifact import ActivationShards
from assets.activations.capture import CaptureMetrics, to_rows
from assets.activations.plan import Reading, ShardPlan
from assets.activations.probe import adapter_probe
from assets.dataset.artifact import S1kDataset
from resources.adapters import Adapter
from resources.attention import use_varlen_attention
from resources.components import components
from resources.errors import BadInput
from resources.models import ModelConfig, load_adapted, load_base
from resources.packing import forward_kwargs, pack
from resources.parts import drop_damaged
from resources.shards import Shards
from tests.shard_builders import states_seen

Capture = Callable[..., CaptureMetrics]
LENGTHS = {2: 17, 3: 40, 5: 8, 6: 33, 9: 25, 11: 40, 12: 5}


def peft_outputs(model: Path, adapter: Path, token_ids: np.ndarray, dtype: str) -> np.ndarray:
    """[T, 14]: what plain hooks see on `lora_A` for one rollout, transformers' own attention and whole model."""
    adapted = load_adapted(ModelConfig.model_validate({"name": str(model), "dtype": dtype}), adapter, "cpu")
    return states_seen(adapted, torch.from_numpy(token_ids.astype(np.int64))).float().numpy()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_scalars_of_packed_rollouts_equal_pefts_own_hooks_at_batch_one(
    tiny_model: Path, tiny_adapter: Path, dataset: Path, dtype: str, tolerance: float
) -> None:
    rollouts = [S1kDataset.open(dataset).token_ids(r) for r in LENGTHS]
    adapted = load_adapted(ModelConfig.model_validate({"name": str(tiny_model), "dtype": dtype}), tiny_adapter, "cpu")
    probe = adapter_probe(adapted)
    use_varlen_attention(adapted)
    packed = pack(rollouts)
    with torch.no_grad(), probe.attached():
        probe.backbone(**forward_kwargs(packed, "cpu"))
        together = probe.take().float().numpy()
    alone = np.concatenate([peft_outputs(tiny_model, tiny_adapter, ids, dtype) for ids in rollouts])
    assert together.shape == (sum(LENGTHS.values()), 14)
    scale = np.abs(alone).max(axis=0)
    assert (np.abs(together - alone) / scale).max() <= tolerance


def test_stored_scalars_are_those_of_peft_rounded_to_float16(
    states: Capture, tiny_model: Path, tiny_adapter: Path, dataset: Path, tmp_path: Path
) -> None:
    metrics = states(tmp_path)
    shards = Shards.open(tmp_path / "out")
    assert shards.columns == tuple(component.id for component in components(2))
    for rollout in LENGTHS:
        ids = S1kDataset.open(dataset).token_ids(rollout)
        batch = shards.rollout(rollout)
        assert batch.token_id_B.tolist() == ids.tolist()
        assert batch.position_B.tolist() == list(range(len(ids)))
        expected = peft_outputs(tiny_model, tiny_adapter, ids, "float32")
        np.testing.assert_allclose(batch.state_BC.astype(np.float32), expected, rtol=6e-4, atol=1e-5)
    assert (metrics.tokens, metrics.rollouts, metrics.columns) == (168, 7, 14)


def test_the_first_layers_scalars_are_a_times_x_worked_out_by_hand(
    states: Capture, tiny_model: Path, tiny_adapter: Path, dataset: Path, tmp_path: Path
) -> None:
    states(tmp_path)
    base = load_base(ModelConfig(name=str(tiny_model), dtype="float32"), "cpu")
    ids = torch.from_numpy(S1kDataset.open(dataset).token_ids(6).astype(np.int64))
    embedded = base.get_parameter("model.embed_tokens.weight")[ids].numpy()
    normed = embedded / np.sqrt((embedded**2).mean(axis=1, keepdims=True) + base.config.rms_norm_eps)
    x = normed * base.model.layers[0].input_layernorm.weight.numpy()
    A = Adapter.open(tiny_adapter).A
    captured = Shards.open(tmp_path / "out").rollout(6).state_BC
    for column, component in enumerate(components(1)[:3]):  # q, k and v read the normed embedding
        np.testing.assert_allclose(captured[:, column], x @ A[component][0].numpy(), rtol=6e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["post", "pre"])
def test_neurons_are_the_unadapted_mlps_first_ones(
    neurons: Capture, activation: str, tiny_model: Path, dataset: Path, tmp_path: Path
) -> None:
    neurons(tmp_path, activation=activation)
    base = load_base(ModelConfig(name=str(tiny_model), dtype="float32"), "cpu")
    ids = S1kDataset.open(dataset).token_ids(3)
    caught: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(base.model.layers):
        block.mlp.register_forward_pre_hook(lambda _m, inputs, at=layer: caught.__setitem__(at, inputs[0]))
    with torch.no_grad():
        base(input_ids=torch.from_numpy(ids.astype(np.int64))[None])
    expected = []
    for layer, block in enumerate(base.model.layers):
        x = caught[layer][0]
        up = x @ block.mlp.up_proj.weight.T
        gate = x @ block.mlp.gate_proj.weight.T
        expected.append((up if activation == "pre" else gate * torch.sigmoid(gate) * up)[:, :5])
    shards = Shards.open(tmp_path / "out")
    assert shards.columns == tuple(f"L{layer}.{neuron}" for layer in (0, 1) for neuron in range(5))
    stored = shards.rollout(3).state_BC.astype(np.float32)
    np.testing.assert_allclose(stored, torch.cat(expected, dim=1).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_neurons_beyond_the_mlp_are_refused(neurons: Capture, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="per_layer is 49, but an MLP has 48"):
        neurons(tmp_path, per_layer=49)


def test_an_adapter_of_another_rank_is_refused(states: Capture, tiny_model: Path, tmp_path: Path) -> None:
    from tests.builders import build_random_adapter

    adapter = build_random_adapter(tmp_path / "rank2", tiny_model, rank=2)
    with pytest.raises(BadInput, match="rank 2"):
        states(tmp_path, adapter=adapter)


def test_only_the_assistants_tokens_are_kept_on_request(states: Capture, tmp_path: Path) -> None:
    states(tmp_path / "all")
    states(tmp_path / "assistant", positions="assistant")
    whole, part = Shards.open(tmp_path / "all/out").rollout(3), Shards.open(tmp_path / "assistant/out").rollout(3)
    assert part.position_B.tolist() == list(range(3, 40))
    np.testing.assert_allclose(part.state_BC, whole.state_BC[3:], atol=1e-2)


def test_shards_hold_whole_rollouts_up_to_their_size_in_fixed_row_groups(states: Capture, tmp_path: Path) -> None:
    states(tmp_path)
    shards = Shards.open(tmp_path / "out")
    held = [sorted(set(shards.read_shard(i).rollout_id_B.tolist())) for i in range(len(shards.paths))]
    assert held == [[2, 3], [5, 6], [9], [11, 12]]
    assert [group.num_rows for group in shards.groups] == [16, 16, 16, 9, 16, 16, 9, 16, 9, 16, 16, 13]


def test_statistics_are_those_of_numpy(states: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.activations.statistics.ROWS_AT_ONCE", 20)  # shards have up to 64
    states(tmp_path)
    shards = Shards.open(tmp_path / "out")
    x = np.concatenate([batch.state_BC for batch in shards.batches(50)]).astype(np.float64)
    for column, row in enumerate(ActivationShards.open(tmp_path / "out").table().to_pylist()):
        values = x[:, column]
        quantiles = np.quantile(values, [0.01, 0.5, 0.99], method="inverted_cdf")
        wanted = [values.mean(), values.std(), values.min(), values.max(), *quantiles]
        wanted.append(np.quantile(np.abs(values), 0.99, method="inverted_cdf"))
        found = [row[name] for name in ("mean", "std", "min", "max", "p01", "p50", "p99", "abs_p99")]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert row["n"] == 168


def test_a_rollout_longer_than_the_models_context_is_cut_and_counted(
    states: Capture, tiny_model: Path, dataset: Path, tmp_path: Path
) -> None:
    from assets.activations.plan import plan_shards

    plan = plan_shards(S1kDataset.open(dataset), "all", 64, context=30)
    assert (plan.rollouts_cut, plan.tokens_cut) == (3, 10 + 3 + 10)
    assert max(len(reading.token_ids) for shard in plan.shards for reading in shard.readings) == 30
    # an answer begins at the fourth token
    assert plan_shards(S1kDataset.open(dataset), "assistant", 64, context=4).num_rows == len(LENGTHS)
    with pytest.raises(BadInput, match="has no token to capture with positions: assistant"):
        plan_shards(S1kDataset.open(dataset), "assistant", 64, context=3)


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_no_scalar_but_nan_and_infinity_stops_a_shard(bad: float) -> None:
    """Of rollout 4 the second token is kept, of rollout 7 the first two."""
    ids = np.array([5, 6, 5], np.int32)
    shard = ShardPlan(0, (Reading(4, ids, np.array([1])), Reading(7, ids, np.arange(2))))
    states = torch.tensor([[65504.0, -65504.0], [0.0, -0.0], [2.0**-24, -(2.0**-14)]], dtype=torch.float16)
    assert np.array_equal(to_rows(shard, states, ("L0.q_proj", "L0.k_proj")).state_BC, states.numpy())
    states[2, 1] = bad
    with pytest.raises(BadInput, match=r"L0\.k_proj is (nan|inf|-inf) at rollout 7, position 1"):
        to_rows(shard, states, ("L0.q_proj", "L0.k_proj"))


def test_a_nan_stops_with_component_rollout_and_position(states: Capture, tiny_adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_adapter, broken)
    weights = load_file(broken / "adapter_model.safetensors")
    weights["base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"] *= 1e30
    save_file(weights, broken / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"L1\.q_proj is -?inf at rollout 2, position 0"):
        states(tmp_path, adapter=broken)


def test_finished_shards_are_taken_and_damaged_or_foreign_ones_computed_again(
    states: Capture, tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    from tests.builders import build_random_adapter

    states(tmp_path / "clean")
    first = states(tmp_path)
    assert first.shards_reused == 0
    scratch = tmp_path / "scratch"
    path = scratch / "shard-00001.parquet"
    whole = path.read_bytes()
    path.unlink()  # the copy in `out` is a hard link
    path.write_bytes(whole[:-100])
    assert drop_damaged(scratch) == [path]  # as the worker does before every attempt
    shutil.rmtree(tmp_path / "out")
    second = states(tmp_path)
    assert second.shards_reused == 3
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "clean/out")

    shutil.rmtree(tmp_path / "out")
    lines: list[str] = []
    other = build_random_adapter(tmp_path / "other", tiny_model, seed=5)
    third = states(tmp_path, lines, adapter=other)
    assert third.shards_reused == 0
    assert sum("another adapter" in line for line in lines) == 4
    assert folder_bytes(tmp_path / "out") != folder_bytes(tmp_path / "clean/out")


def test_a_full_disk_is_said_and_leaves_the_finished_shards(states: Capture, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "shard-00002.parquet.partial").symlink_to("/dev/full")
    with pytest.raises(BadInput, match=r"disk under .* is full"):
        states(tmp_path)
    shutil.rmtree(tmp_path / "out")
    assert states(tmp_path).shards_reused >= 2


def test_capturing_twice_writes_the_same_bytes(states: Capture, tmp_path: Path) -> None:
    states(tmp_path / "a")
    states(tmp_path / "b")
    assert folder_bytes(tmp_path / "a/out") == folder_bytes(tmp_path / "b/out")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


RANKS = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from assets.activations.capture import capture_states
from assets.activations.config import ActivationsConfig
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress
model, adapter, dataset, folder = json.loads(sys.argv[1])
capture_states(
    model=ModelConfig(name=model, dtype="float32"), activations=ActivationsConfig(shard_rows=64, row_group_rows=16),
    s1k_dataset=Path(dataset), lora_checkpoint=Path(adapter), out=Path(folder, "out"), scratch=Path(folder, "scratch"),
    progress=Progress(lambda _: None), compute=ComputeConfig(profile="cpu", tokens_per_batch=64),
)
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(
    states: Capture, tiny_model: Path, tiny_adapter: Path, dataset: Path, tmp_path: Path
) -> None:
    states(tmp_path / "one")
    for name in ("out", "scratch"):
        (tmp_path / "two" / name).mkdir(parents=True)
    arguments = json.dumps([str(tiny_model), str(tiny_adapter), str(dataset), str(tmp_path / "two")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, arguments],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"},
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    one = folder_bytes(tmp_path / "one/out")
    assert sorted(one) == [*(f"shard-{i:05d}.parquet" for i in range(4)), "statistics.parquet"]
    assert one == folder_bytes(tmp_path / "two/out")


def test_shards_open_in_duckdb_polars_and_datasets_with_the_same_numbers(states: Capture, tmp_path: Path) -> None:
    import datasets
    import duckdb

    states(tmp_path)
    glob = str(tmp_path / "out/shard-*.parquet")
    mine = as_arrow_and_polars_read(tmp_path / "out")
    rows = duckdb.execute("select state from read_parquet(?) order by rollout_id, position", [glob]).fetchall()
    assert np.array_equal(np.array([row[0] for row in rows], np.float16), mine)
    loaded = datasets.load_dataset("parquet", data_files=glob, split="train", cache_dir=str(tmp_path / "cache"))
    assert np.array_equal(np.array(loaded["state"], np.float16), mine)


def test_byte_stream_split_holds_the_same_numbers(states: Capture, tmp_path: Path) -> None:
    states(tmp_path / "plain")
    states(tmp_path / "split", encoding="byte_stream_split")
    split = pq.ParquetFile(tmp_path / "split/out/shard-00000.parquet").metadata.row_group(0).column(3)
    assert "BYTE_STREAM_SPLIT" in split.encodings
    mine = as_arrow_and_polars_read(tmp_path / "split/out")
    assert np.array_equal(mine, as_arrow_and_polars_read(tmp_path / "plain/out"))


def as_arrow_and_polars_read(folder: Path) -> np.ndarray:
    """[tokens, 14], the same by both libraries and by `Shards`."""
    import polars

    mine = np.concatenate([batch.state_BC for batch in Shards.open(folder).batches(1000)])
    arrow = pq.read_table(sorted(folder.glob("shard-*.parquet")))["state"].combine_chunks().flatten()
    assert np.array_equal(arrow.to_numpy().reshape(-1, 14), mine)
    frame = polars.read_parquet(folder / "shard-*.parquet")
    assert np.array_equal(np.array(frame["state"].to_list(), np.float16), mine)
    return mine
