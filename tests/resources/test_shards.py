"""Shards: what is written comes back in order by every way of reading, and what does not belong is named."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resources.errors import BadInput
from resources.shards import SHARD, Shards, StateBatch, write_shard
from tests.shard_builders import build_shards

LENGTHS = {0: 40, 1: 3, 5: 70, 6: 1, 9: 33}


def states(width: int = 14) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    return {r: rng.standard_normal((n, width)).astype(np.float16) for r, n in LENGTHS.items()}


def build(folder: Path) -> Path:
    tokens = {r: 100 * r + np.arange(n) for r, n in LENGTHS.items()}
    return build_shards(folder, states(), tokens=tokens, rollouts_per_shard=2, row_group_rows=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize("rows", [1, 16, 50, 1000])
def test_batches_hold_every_token_in_order_whatever_their_size(folder: Path, rows: int) -> None:
    shards = Shards.open(folder)
    batches = list(shards.batches(rows))
    full, rest = divmod(sum(LENGTHS.values()), rows)
    assert [len(batch) for batch in batches] == [rows] * full + [rest] * (rest > 0)
    assert shards.num_tokens == sum(LENGTHS.values()) == sum(map(len, batches))
    assert np.array_equal(
        np.concatenate([batch.state_BC for batch in batches]), np.concatenate(list(states().values()))
    )
    ids = [np.stack([batch.rollout_id_B, batch.position_B, batch.token_id_B], 1) for batch in batches]
    assert np.concatenate(ids).tolist() == [[r, t, 100 * r + t] for r, n in LENGTHS.items() for t in range(n)]


def test_a_rollout_a_row_group_and_a_shard_read_alone(folder: Path) -> None:
    shards = Shards.open(folder)
    for rollout, state in states().items():
        assert np.array_equal(shards.rollout(rollout).state_BC, state)
    groups = shards.groups
    assert [group.num_rows for group in groups] == [16, 16, 11, 16, 16, 16, 16, 7, 16, 16, 1]
    assert np.array_equal(shards.read_row_group(1).state_BC, states()[0][16:32])
    assert (groups[2].first_rollout, groups[2].last_rollout) == (0, 1)
    assert shards.rollout_ids(2).tolist() == [0] * 8 + [1] * 3
    assert sorted(set(shards.read_shard(1).rollout_id_B.tolist())) == [5, 6]
    ids = [np.stack(pair) for pair in shards.ids()]
    assert np.concatenate(ids, axis=1).T.tolist() == [[r, t] for r, n in LENGTHS.items() for t in range(n)]


def test_a_rollout_that_was_not_captured_is_a_key_error(folder: Path) -> None:
    with pytest.raises(KeyError, match="rollout 4"):
        Shards.open(folder).rollout(4)
    with pytest.raises(KeyError, match="rollout 77"):
        Shards.open(folder).rollout(77)


def test_the_schema_names_columns_and_source(folder: Path) -> None:
    shards = Shards.open(folder)
    assert shards.columns[:8] == (
        "L0.q_proj", "L0.k_proj", "L0.v_proj", "L0.o_proj", "L0.gate_proj", "L0.up_proj", "L0.down_proj", "L1.q_proj",
    )  # fmt: skip
    assert shards.fingerprint == "test"
    schema = pq.read_schema(folder / SHARD.format(0))
    assert schema.field("state").type == pa.list_(pa.field("element", pa.float16(), nullable=False), 14)
    assert [schema.field(name).type for name in ("rollout_id", "position", "token_id")] == [pa.int32()] * 3


def test_states_can_be_written_to_so_that_torch_takes_them(folder: Path) -> None:
    assert Shards.open(folder).read_row_group(0).state_BC.flags.writeable


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), "holds no activation shards"),
        (lambda f: (f / SHARD.format(1)).unlink(), "lacks a shard between"),
        (lambda f: (f / SHARD.format(1)).write_bytes((f / SHARD.format(1)).read_bytes()[:-9]), "00001.*truncated"),
        (lambda f: (f / SHARD.format(2)).write_bytes(b""), "00002.*truncated"),
        (lambda f: pq.write_table(pa.table({"a": [1]}), f / SHARD.format(1)), "00001.*names no columns"),
        (lambda f: shutil.copy(f / SHARD.format(0), f / SHARD.format(1)), "00001.*does not go on where"),
    ],
)
def test_what_is_missing_truncated_or_out_of_order_is_named(folder: Path, tmp_path: Path, damage, message: str) -> None:  # noqa: ANN001
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)
    with pytest.raises(BadInput, match=message):
        Shards.open(copy)


def test_a_shard_of_another_adapter_or_schema_is_never_mixed_in(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    late = StateBatch(np.array([5]), np.array([0]), np.array([0]), np.zeros((1, 14), np.float16))
    write_shard(copy / SHARD.format(1), late, Shards.open(folder).columns, "another", 16)
    with pytest.raises(BadInput, match=r"00001.*another adapter"):
        Shards.open(copy)
    columns = b'["L0.0"]'
    table = pq.read_table(folder / SHARD.format(1)).replace_schema_metadata(
        {"columns": columns, "fingerprint": b"test"}
    )
    pq.write_table(table, copy / SHARD.format(1))
    with pytest.raises(BadInput, match=r"00001.*another schema"):
        Shards.open(copy)


def test_a_shard_that_begins_in_the_rollout_where_another_ends_does_not_go_on_there(tmp_path: Path) -> None:
    build_shards(tmp_path, {0: np.ones((4, 7)), 1: np.ones((4, 7))}, rollouts_per_shard=2, row_group_rows=4)
    again = StateBatch(np.array([1] * 8 + [2] * 8), np.arange(16), np.arange(16), np.zeros((16, 7), np.float16))
    write_shard(tmp_path / SHARD.format(1), again, Shards.open(tmp_path).columns, "test", 8)
    with pytest.raises(BadInput, match=r"00001\.parquet does not go on where shard-00000\.parquet ends"):
        Shards.open(tmp_path)


def test_a_flipped_bit_is_found_by_the_pages_checksum(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / SHARD.format(1)
    shards = Shards.open(copy)
    offset = pq.ParquetFile(path).metadata.row_group(2).column(3).data_page_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 60] ^= 1
    path.write_bytes(raw)
    index = next(i for i, group in enumerate(shards.groups) if group.path == path and group.index == 2)
    with pytest.raises(BadInput, match=r"00001.*damaged"):
        shards.read_row_group(index)


def test_a_flipped_byte_of_the_ids_is_found_by_every_way_of_reading_them(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / SHARD.format(1)
    shards = Shards.open(copy)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert column.path_in_schema == "rollout_id"
    raw = bytearray(path.read_bytes())
    raw[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(raw)
    index = next(i for i, group in enumerate(shards.groups) if group.path == path)
    for read in (lambda: list(shards.ids()), lambda: shards.rollout_ids(index), lambda: shards.read_row_group(index)):
        with pytest.raises(BadInput, match=r"00001\.parquet is damaged .*compute the shards again"):
            read()


def test_the_same_rows_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    build(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [path.name for path in sorted(folder.iterdir())]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
