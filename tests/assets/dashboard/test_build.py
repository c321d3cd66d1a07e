"""What lies in the site's files, read back without a browser."""

import gzip
import itertools
import json
import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from assets.contexts.artifact import CONTEXTS
from assets.dashboard.artifact import FeatureDashboard
from assets.dashboard.build import TOP_TOKENS
from assets.dashboard.chunks import ChunkWriter, write_chunk, write_index
from assets.dashboard.config import DashboardConfig
from assets.dashboard.directions import DecoderGrid, LogitEffects, added_logits, token_name
from assets.dashboard.full_rollouts import full_values
from assets.dashboard.pieces import Pieces
from assets.dashboard.units import read_contexts
from assets.dataset.artifact import S1kDataset
from assets.sae.artifact import Sae
from resources.models import ModelConfig, load_tokenizer
from resources.shards import SHARD, Shards, StateBatch, write_shard
from tests.assets.dashboard.conftest import Site
from tests.dashboard_builders import HOSTILE, SILENT, TEXTS


def read_chunk(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    packed = re.fullmatch(r'lorascope\.chunk\("[\w-]+",(\d+),"([\u4000-\ubfff]*)"\);\n', path.read_text("utf-16"))
    assert packed is not None
    bits = "".join(f"{ord(character) - 0x4000:015b}" for character in packed[2])
    content = gzip.decompress(bytes(int(bits[i : i + 8], 2) for i in range(0, 8 * int(packed[1]), 8)))
    (length,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + length])
    places = header.pop("arrays").items()
    return header, {n: np.frombuffer(content, t, count, 4 + length + offset) for n, (t, offset, count) in places}


def contexts_by_unit(site: Site) -> dict[str, list[dict]]:
    words = read_chunk(site.folder / "data" / "pieces-0000.js")[0]["pieces"]
    found: dict[str, list[dict]] = {}
    for path in sorted((site.folder / "data").glob("units-*.js")):
        header, arrays = read_chunk(path)
        row, offset = 0, 0
        for unit in header["units"]:
            found[unit["unit"]] = []
            for _ in range(unit["contexts"]):
                end = offset + int(arrays["length"][row])
                one = {name: arrays[name][row].item() for name in ("sample", "rollout", "position", "start", "value")}
                text = "".join(words[i] for i in arrays["pieces"][offset:end])
                found[unit["unit"]].append(one | {"text": text, "values": arrays["values"][offset:end].tolist()})
                row, offset = row + 1, end
    return found


def test_pieces_joined_are_the_text_even_where_a_token_ends_inside_a_character(site: Site) -> None:
    pieces = Pieces.of(S1kDataset.open(site.built.folders["s1k_dataset"]), list(TEXTS))
    for rollout, text in TEXTS.items():
        assert "".join(pieces.vocabulary[i] for i in pieces.rollout(rollout)) == text


def test_every_context_reads_as_its_place_in_the_rollout_with_the_stored_values(site: Site) -> None:
    dataset = S1kDataset.open(site.built.folders["s1k_dataset"])
    wanted: dict[str, list[dict]] = {}
    for row in site.built.contexts:
        neuron, limit = row["unit"].startswith("neuron:"), site.config.top_contexts
        limit = 4 if neuron else limit if row["sample"] == "top" else SILENT
        every = 2 if neuron and row["sample"] == "silent" else 1  # 2 of the 4 that there are
        if row["rank"] < limit and row["rank"] % every == 0:
            wanted.setdefault(row["unit"], []).append(row)
    found = contexts_by_unit(site)
    assert {unit for unit, rows in found.items() if rows} == set(wanted)
    for unit, rows in wanted.items():
        for row, one in zip(rows, found[unit], strict=True):
            spans = dataset.spans(row["rollout_id"])[row["start"] : row["start"] + len(row["values"])]
            assert one["text"] == TEXTS[row["rollout_id"]][spans[0, 0] : spans[-1, 1]]
            assert (one["rollout"], one["position"], one["start"]) == (row["rollout_id"], row["position"], row["start"])
            assert one["values"] == np.array(row["values"], np.float16).tolist()
            assert one["value"] == np.float32(row["value"])


def test_quantile_samples_are_thinned_evenly_not_from_the_top(tmp_path: Path) -> None:
    base = {"unit": "latent:0", "sample": "quantile", "rollout_id": 0, "start": 0, "token_ids": [], "values": [1.0]}
    rows = [{**base, "rank": rank, "position": rank, "value": 32.0 - rank} for rank in range(32)]
    pq.write_table(pa.Table.from_pylist(rows, schema=CONTEXTS), tmp_path / "c.parquet")
    found = read_contexts(tmp_path / "c.parquet", DashboardConfig(neuron_contexts=8))
    assert found.position_C.tolist() == [0, 4, 8, 12, 16, 20, 24, 28]


def test_full_rollouts_hold_every_activation_to_a_254th_of_the_strongest(site: Site) -> None:
    seen: set[str] = set()
    for path in sorted((site.folder / "data").glob("full-*.js")):
        header, arrays = read_chunk(path)
        for unit, rollouts in header["places"].items():
            for rollout, (offset, count, scale) in rollouts.items():
                expected = site.built.values[unit][int(rollout)]
                found = arrays["levels"][offset : offset + count] / 127 * scale
                assert found == pytest.approx(expected, abs=scale / 254 + 1e-6)
                seen.add(unit.split(":")[0])
    assert seen == {"adapter", "neuron", "latent"}


def test_activations_of_a_full_rollout_stand_at_their_own_tokens_where_only_some_were_captured(
    site: Site, tmp_path: Path
) -> None:
    whole = Shards.open(site.built.folders["activation_shards"])
    for number in range(len(whole.paths)):
        batch = whole.read_shard(number)
        reply = StateBatch(*(getattr(batch, part)[batch.position_B >= 20] for part in StateBatch.__dataclass_fields__))
        write_shard(tmp_path / SHARD.format(number), reply, whole.columns, "reply", 32)
    units = ["adapter:L1.down_proj:+", "latent:5"]
    sae = Sae.open(site.built.folders["batchtopk_sae"])
    full = full_values(dict.fromkeys(TEXTS, units), Shards.open(tmp_path), Shards.open(tmp_path), sae)
    for unit in units:
        for rollout, level in full[unit].items():
            expected = np.concatenate([np.zeros(20), site.built.values[unit][rollout][20:]])
            assert level.level_T / 127 * level.scale == pytest.approx(expected, abs=level.scale / 254 + 1e-6)


def test_each_unit_shows_its_own_strongest_rollout_in_full(site: Site) -> None:
    first = {}
    for row in site.built.contexts:
        if row["sample"] == "top" and row["rank"] == 0:
            first[row["unit"]] = row["rollout_id"]
    places = {}
    for path in (site.folder / "data").glob("full-*.js"):
        places |= {unit: list(found) for unit, found in read_chunk(path)[0]["places"].items()}
    assert {unit: [int(r) for r in found] for unit, found in places.items() if found} == {
        u: [r] for u, r in first.items()
    }


def test_rollouts_of_the_site_are_the_dataset(site: Site) -> None:
    words = read_chunk(site.folder / "data" / "pieces-0000.js")[0]["pieces"]
    texts = []
    for path in sorted((site.folder / "data").glob("rollouts-*.js")):
        header, arrays = read_chunk(path)
        cuts = np.cumsum([0, *header["lengths"]])
        texts += ["".join(words[i] for i in arrays["pieces"][a:b]) for a, b in itertools.pairwise(cuts)]
    assert texts == [TEXTS[r] for r in sorted(TEXTS)]


def test_the_parquet_list_has_a_row_per_unit_with_its_facts(site: Site) -> None:
    table = FeatureDashboard.open(site.folder).table()
    rows = table.to_pylist()
    assert [row["unit"] for row in rows] == [unit["unit"] for unit in site.built.units]
    assert rows[0]["explanation"] == HOSTILE
    assert rows[4]["label"] == 1
    assert (rows[0]["typical"], rows[4]["typical"]) == (0.25, None)
    assert [(row["fuzzing"], row["intruder"]) for row in (rows[0], rows[4])] == [(None, None), (0.625, 0.25)]
    assert rows[4]["category"] == "category 0"
    # 25 x 37 % 50 = 25
    assert (rows[25]["score"], rows[25]["score_low"], rows[25]["score_high"]) == (0.75, 0.5, 1.0)
    assert site.metrics.units == len(rows)


def test_logit_effects_are_the_direction_through_norm_and_unembedding(
    site: Site, tiny_model: Path, tiny_adapter: Path
) -> None:
    from peft import PeftModel
    from transformers import Qwen2ForCausalLM

    base = Qwen2ForCausalLM.from_pretrained(tiny_model)
    adapted = PeftModel.from_pretrained(base, str(tiny_adapter))
    weights = adapted.state_dict()
    down = weights["base_model.model.model.layers.1.mlp.down_proj.lora_B.default.weight"][:, 0] * 16
    expected = base.lm_head.weight @ (base.model.norm.weight * down)
    sae = Sae.open(site.built.folders["batchtopk_sae"])
    effects = LogitEffects(ModelConfig(name=str(tiny_model)), tiny_adapter, sae, sae.columns, 5)
    plus, minus, inner, neuron = effects.of(
        ["adapter:L1.down_proj:+", "adapter:L1.down_proj:-", "adapter:L1.q_proj:+", "neuron:L1.0:+"]
    )
    assert inner is None
    assert neuron is None
    assert plus is not None
    assert minus is not None
    assert [v for _, v in plus["up"]] == pytest.approx(expected.topk(5).values.tolist(), rel=6e-3)
    tokenizer = load_tokenizer(ModelConfig(name=str(tiny_model)))
    assert [name for name, _ in plus["up"]] == [token_name(tokenizer, i) for i in expected.topk(5).indices.tolist()]
    assert plus["up"] == [(name, -value) for name, value in minus["down"]]
    assert plus["down"] == [(name, -value) for name, value in minus["up"]]
    assert [v for _, v in minus["down"]] == pytest.approx((-expected.topk(5).values).tolist(), rel=6e-3)
    (latent,) = effects.of(["latent:3"])
    by_name = dict(zip(sae.columns, sae.W_dec_FD[3].tolist(), strict=True))
    written = torch.zeros(32)
    for name, weight in by_name.items():
        layer, projection = name[1:].split(".")
        block = {"o_proj": "self_attn", "down_proj": "mlp"}.get(projection)
        if block:
            key = f"base_model.model.model.layers.{layer}.{block}.{projection}.lora_B.default.weight"
            written += weight * weights[key][:, 0] * 16
    expected = base.lm_head.weight @ (base.model.norm.weight * written)
    assert latent is not None
    assert [v for _, v in latent["up"]] == pytest.approx(expected.topk(5).values.tolist(), rel=6e-3)


def test_a_unit_tells_the_commonest_tokens_at_the_peaks_of_its_strongest_contexts(site: Site) -> None:
    pieces = Pieces.of(S1kDataset.open(site.built.folders["s1k_dataset"]), list(TEXTS))
    peaks: dict[str, Counter[str]] = {unit["unit"]: Counter() for unit in site.built.units}
    for row in site.built.contexts:
        if row["sample"] == "top" and row["rank"] < (4 if row["unit"].startswith("neuron:") else 12):
            peaks[row["unit"]][pieces.vocabulary[pieces.rollout(row["rollout_id"])[row["position"]]]] += 1
    for path in (site.folder / "data").glob("units-*.js"):
        for told in read_chunk(path)[0]["units"]:
            counts = peaks.pop(told["unit"])
            assert [count for _, count in told["top_tokens"]] == sorted(counts.values(), reverse=True)[:TOP_TOKENS]
            assert all(counts[token] == count for token, count in told["top_tokens"])
    assert not peaks


def test_a_latents_decoder_is_a_row_for_each_layer_and_a_column_for_each_projection_that_is_there() -> None:
    columns = ("L0.q_proj", "L2.down_proj", "L2.q_proj")
    W_FD = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.12345]])
    sae = Sae(Path(), columns, 1, 0.0, W_FD.T, torch.zeros(2), W_FD, torch.zeros(3), torch.zeros(2))
    grid = DecoderGrid(sae, columns).of(1)
    assert grid == {"projections": ["q_proj", "down_proj"], "rows": [[1, 0], [0, 0], [0.123, -2]]}


def test_a_token_that_is_no_whole_character_is_named_by_its_bytes() -> None:
    tokenizer = load_tokenizer(ModelConfig(name="resources/mini_world/model"))
    names = {token_name(tokenizer, token) for token in range(256)}  # the alphabet and a few merges
    assert {"a", "\n", "\\xe5", "\\xff", "\\x00", "\\x7f"} <= names
    assert not any("\ufffd" in name or "\0" in name for name in names)
    token = tokenizer.convert_tokens_to_ids("åĽ"[0])  # the byte e5 in the alphabet of byte-level BPE
    assert isinstance(token, int)
    assert token_name(tokenizer, token) == "\\xe5"


def test_a_tied_model_reads_its_embedding_as_the_unembedding(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(3, 2)
    save_file({"model.norm.weight": torch.ones(2), "model.embed_tokens.weight": table}, tmp_path / "model.safetensors")
    assert added_logits(ModelConfig(name=str(tmp_path)), torch.eye(2)).tolist() == table.tolist()


def test_a_vocabulary_is_read_in_slices_and_the_norms_gain_weighs_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.dashboard.directions.VOCABULARY_SLICE", 2)
    head_VD, gain_D = torch.tensor([[1.0, 0], [0, 1], [1, 1]]), torch.tensor([2.0, 10])
    save_file({"lm_head.weight": head_VD, "model.norm.weight": gain_D}, tmp_path / "model.safetensors")
    assert added_logits(ModelConfig(name=str(tmp_path)), torch.tensor([[3.0], [4]])).tolist() == [[6], [40], [46]]


def test_a_model_in_several_files_is_read_from_the_right_ones(tmp_path: Path) -> None:
    save_file({"model.norm.weight": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"lm_head.weight": torch.eye(2)}, tmp_path / "b.safetensors")
    names = {"model.norm.weight": "a.safetensors", "lm_head.weight": "b.safetensors", "other": "c.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert added_logits(ModelConfig(name=str(tmp_path)), torch.eye(2)).tolist() == [[1, 0], [0, 1]]


def test_scripts_never_hold_what_could_end_them(tmp_path: Path) -> None:
    text = "</script><!--\u2028\u2029 it's \\n"
    write_index(tmp_path / "index.js", {"text": text})
    written = (tmp_path / "index.js").read_text()
    assert not set("<\u2028\u2029") & set(written)
    quoted = written.removeprefix("lorascope.index('").removesuffix("');\n")
    assert json.loads(quoted.replace("\\\\", "\\").replace("\\'", "'")) == {"text": text}


def test_a_chunk_keeps_arrays_of_every_width_aligned(tmp_path: Path) -> None:
    arrays = {
        "bytes": np.array([1, 2, 3], np.uint8),
        "words": np.array([4, 65535, 6], np.uint16),
        "none": np.zeros(0, np.float32),
        "halves": np.array([0.5, -2], np.float16),
    }
    write_chunk(tmp_path, "x", 3, {"a": "\u0000\ud800😀"}, arrays)
    header, found = read_chunk(tmp_path / "x-0003.js")
    assert header == {"a": "\u0000\ud800😀"}
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in arrays.items()}


def test_building_twice_gives_the_same_bytes(site: Site, tiny_model: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    from assets.dashboard.build import build
    from resources.progress import Progress

    build(
        model=ModelConfig(name=str(tiny_model), dtype="float32"), dashboard=site.config, lora_checkpoint=tiny_adapter,
        out=tmp_path / "again", progress=Progress(lambda _text: None), **site.built.folders,
    )  # fmt: skip
    for path in sorted(site.folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(site.folder)).read_bytes(), path.name


def test_a_unit_shows_as_many_contexts_as_may_be_wherever_it_lies_in_the_file(tmp_path: Path) -> None:
    numbers = {"latent:0": 32, "latent:1": 12, "latent:2": 5}
    base = {"sample": "quantile", "rollout_id": 0, "start": 0, "token_ids": [], "values": [1.0]}
    rows = [
        {**base, "unit": unit, "rank": rank, "position": rank, "value": 32.0 - rank}
        for unit, number in numbers.items()
        for rank in range(number)
    ]
    for size in (64, 30, 7):
        pq.write_table(pa.Table.from_pylist(rows, schema=CONTEXTS), tmp_path / "c.parquet", row_group_size=size)
        found = read_contexts(tmp_path / "c.parquet", DashboardConfig(neuron_contexts=8))
        shown = {unit: found.position_C[first:end].tolist() for unit, (first, end) in found.bounds.items()}
        assert shown == {
            "latent:0": [0, 4, 8, 12, 16, 20, 24, 28],
            "latent:1": [0, 2, 3, 5, 6, 8, 9, 11],
            "latent:2": [0, 1, 2, 3, 4],
        }


def test_an_activation_beyond_float16_is_shown_as_the_largest_there_is(tmp_path: Path) -> None:
    row = {"unit": "latent:0", "sample": "top", "rank": 0, "rollout_id": 0, "position": 0, "value": 1e6, "start": 0}
    rows = [{**row, "token_ids": [], "values": [1e6, 0.5, -1e6]}]
    pq.write_table(pa.Table.from_pylist(rows, schema=CONTEXTS), tmp_path / "c.parquet")
    found = read_contexts(tmp_path / "c.parquet", DashboardConfig(neuron_contexts=8))
    assert found.values_W.tolist() == [65504, 0.5, -65504]


def test_an_adapter_that_writes_nowhere_has_no_logit_effects(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_adapter / "adapter_model.safetensors")
    reading = {name: weight for name, weight in weights.items() if "q_proj" in name or "v_proj" in name}
    save_file(reading, tmp_path / "adapter_model.safetensors")
    config = json.loads((tiny_adapter / "adapter_config.json").read_text()) | {"target_modules": ["q_proj", "v_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    columns = ("L0.q_proj", "L0.v_proj", "L1.q_proj", "L1.v_proj")
    W_FD, zeros_F = torch.ones(8, 4), torch.zeros(8)
    sae = Sae(tmp_path, columns, 2, 0.1, W_FD.T, zeros_F, W_FD, torch.zeros(4), torch.ones(8))
    effects = LogitEffects(ModelConfig(name=str(tiny_model)), tmp_path, sae, columns, 5)
    assert effects.of(["adapter:L0.q_proj:+", "latent:0"]) == [None, None]


def test_all_bytes_of_chunks_are_counted_and_one_that_cannot_be_written_ends_the_build(tmp_path: Path) -> None:
    writer = ChunkWriter(tmp_path)
    for number in range(3):
        writer.write("units", number, {"n": number}, {"a": np.arange(50 * number)})
    assert writer.finish() == sum(path.stat().st_size for path in tmp_path.glob("units-000[0-2].js")) > 0
    (tmp_path / "a file").touch()
    broken = ChunkWriter(tmp_path / "a file")
    broken.write("units", 0, {}, {})
    with pytest.raises(OSError, match="a file"):
        broken.finish()
