"""Edited passes: equal to deleting weights, equal wherever the stream is kept, in half the work and known memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from assets.ablation import divergence
from assets.ablation.adapted import AdaptedModel
from assets.ablation.catalogue import catalogue, removal
from assets.ablation.edits import ComponentEdit, Edit, entry_point
from assets.ablation.measure import Sums, measure
from assets.ablation.memory import SAFE, Shape, pass_bytes, plan_memory, stream_bytes
from assets.ablation.passages import Passage, cut
from assets.ablation.stream import FullStream, Keep, batched, run_edited
from resources.adapters import write_ablated
from resources.components import WRITERS, Component, components
from resources.errors import BadInput
from resources.models import ModelConfig, load_adapted
from resources.onednn import FLOP_FORMULA
from tests.assets.ablation.world import World
from tests.builders import build_random_adapter, build_tiny_qwen2

Precision = Literal["float32", "bfloat16"]

IDS = torch.arange(40, 65)


def passage(num_tokens: int = 25) -> Passage:
    ids = np.random.default_rng(1).integers(0, 250, num_tokens)
    return cut(5, ids, np.arange(num_tokens) >= 4, num_tokens, "all")


def edits_of(model: AdaptedModel, group_size: int = 1) -> list[Edit]:
    parts = catalogue(model.adapter.components, None, group_size)
    found = [removal(part.unit, part.components & model.live, None) for part in parts]
    return [edit for edit in found if edit is not None]


def test_parts_of_an_adapter_without_its_middle_layers_by_hand() -> None:
    every = [Component(layer, name) for layer in (0, 1, 4) for name in ("q_proj", "up_proj")]
    found = [(part.kind, part.unit, len(part.components)) for part in catalogue(every, ["L4.up_proj", "L0.q_proj"], 2)]
    assert found == [
        ("component", "L0.q_proj", 1), ("component", "L4.up_proj", 1),
        ("layer", "L0", 2), ("layer", "L1", 2), ("layer", "L4", 2),
        ("projection", "q_proj", 3), ("projection", "up_proj", 3),
        ("attention", "attention", 3), ("mlp", "mlp", 3),
        ("group", "L0-L1", 4), ("group", "L4-L4", 2), ("all", "all", 6),
    ]  # fmt: skip


@torch.inference_mode()
def final(model: AdaptedModel, edits: list[Edit], keep: Keep, rows: int) -> torch.Tensor:
    edits = sorted(edits, key=lambda edit: edit.entry)
    stream = FullStream(model, IDS, [edit.entry for edit in edits], keep)
    return torch.cat([run_edited(stream, batch) for batch in batched(edits, rows)])


def test_a_masked_forward_equals_deleting_the_components_weights(
    world: World, adapted: AdaptedModel, tmp_path: Path
) -> None:
    gone = frozenset([Component(0, "v_proj"), Component(1, "gate_proj"), Component(1, "o_proj")])
    write_ablated(world.adapter, tmp_path, gone)
    deleted = load_adapted(world.model, tmp_path, "cpu")
    edit = removal("three", gone, None)
    assert edit is not None
    with torch.inference_mode():
        wanted = deleted(IDS[None]).logits
        found = final(adapted, [edit], "device", 1) @ adapted.head_VD.T
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert (wanted - world.logits(IDS.tolist(), {})).abs().max() > 0.1


@pytest.mark.parametrize("keep", ["host", "recompute"])
def test_where_the_stream_is_kept_changes_no_bit(adapted: AdaptedModel, keep: Keep) -> None:
    edits = edits_of(adapted)
    assert torch.equal(final(adapted, edits, "device", 5), final(adapted, edits, keep, 5))


def test_one_row_at_a_time_equals_all_rows_at_once(adapted: AdaptedModel) -> None:
    edits = edits_of(adapted)
    torch.testing.assert_close(final(adapted, edits, "device", 1), final(adapted, edits, "device", 99))


def test_components_whose_b_is_zero_are_not_worn_and_need_no_pass(world: World, tmp_path: Path) -> None:
    write_ablated(world.adapter, tmp_path, [Component(1, "q_proj")])
    model = AdaptedModel.load(world.model, tmp_path, "cpu")
    assert model.live == frozenset(components(2)) - {Component(1, "q_proj")}
    assert removal("L1.q_proj", frozenset([Component(1, "q_proj")]) & model.live, None) is None


@pytest.mark.parametrize(("rank", "dtype"), [(1, "bfloat16"), (3, "float32")])
def test_other_ranks_and_bfloat16_follow_peft(tiny_model: Path, tmp_path: Path, rank: int, dtype: Precision) -> None:
    config = ModelConfig(name=str(tiny_model), dtype=dtype)
    folder = build_random_adapter(tmp_path, tiny_model, rank=rank)
    model, peft = AdaptedModel.load(config, folder, "cpu"), load_adapted(config, folder, "cpu")
    with torch.inference_mode():
        wanted = peft(IDS[None]).logits[0].float()
        found = (FullStream(model, IDS, [], "recompute").final_TD @ model.head_VD.T).float()
    tolerance = 0.1 if dtype == "bfloat16" else 1e-4
    assert (found - wanted).abs().max() < tolerance * wanted.abs().max()


def test_an_adapter_of_another_model_is_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    wide = Qwen2Config(
        vocab_size=20, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    Qwen2ForCausalLM(wide).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="belongs to another model"):
        AdaptedModel.load(ModelConfig(name=str(tmp_path), dtype="float32"), tiny_adapter, "cpu")


def test_units_spread_evenly_over_16_layers_cost_at_most_055_of_full_forwards(tmp_path: Path) -> None:
    deep = build_tiny_qwen2(tmp_path / "model", num_layers=16)
    adapter = build_random_adapter(tmp_path / "adapter", deep)
    model = AdaptedModel.load(ModelConfig(name=str(deep), dtype="float32"), adapter, "cpu")
    found = [removal(c.id, frozenset([c]), None) for c in model.adapter.components[1::2]]
    edits = [edit for edit in found if edit is not None]
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULA) as ours:
        measure(model, passage(), edits, 400)
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=FLOP_FORMULA) as one:
        model.base(torch.from_numpy(passage().ids_T)[None])
    # The head is a third of this model's FLOPs and cannot be shared, so it is left out on both sides.
    head = 2 * 25 * model.head_VD.numel()
    batches = -(-len(edits) // (400 // 25))
    mine = ours.get_total_flops() - (len(edits) + batches + 1) * head
    assert 0.4 < mine / (len(edits) * (one.get_total_flops() - head)) <= 0.55


def test_removing_the_last_down_proj_runs_no_layer_again(adapted: AdaptedModel) -> None:
    def flops(component: Component) -> int:
        edit = removal(component.id, frozenset([component]), None)
        assert edit is not None
        with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULA) as counted:
            measure(adapted, passage(), [edit], 25)
        return counted.get_total_flops()

    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=FLOP_FORMULA) as one:
        FullStream(adapted, torch.from_numpy(passage().ids_T), [], "recompute")
    # The head reads the full run alone, then both runs side by side; the write is 25 tokens x 32 outputs.
    heads, write = 3 * 2 * 25 * adapted.head_VD.numel(), 2 * 25 * 32
    assert flops(Component(1, "down_proj")) == one.get_total_flops() + heads + write
    assert flops(Component(1, "o_proj")) < flops(Component(1, "v_proj"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_write_into_the_stream_equals_a_pass_from_the_embedding(
    tiny_model: Path, tmp_path: Path, dtype: Precision
) -> None:
    class FromTheEmbedding(Edit):
        entry = 0  # pyright: ignore[reportAssignmentType]

    config = ModelConfig(name=str(tiny_model), dtype=dtype)
    model = AdaptedModel.load(config, build_random_adapter(tmp_path, tiny_model), "cpu")
    on_T1 = (torch.arange(len(IDS)) > 7)[:, None]
    writers = sorted((c for c in model.live if c.projection in WRITERS), key=entry_point)
    change = ComponentEdit(gain=-2.0, shift=0.5, write_O=torch.ones(32))
    edits = [Edit(c.id, {c: change}, on_T1) for c in writers]
    assert [len(edit.writes) for edit in edits] == [1, 1, 1, 1]
    short = final(model, edits, "device", 3).float()
    long = final(model, [FromTheEmbedding(e.name, e.changes, e.on_T1) for e in edits], "device", 3).float()
    tolerance = 0.05 if dtype == "bfloat16" else 1e-5
    assert (short - long).abs().max() < tolerance * long.abs().max()


def test_logits_that_are_not_finite_are_placed(world: World) -> None:
    model = AdaptedModel.load(world.model, world.adapter, "cpu")
    edit = Edit("a huge write", {c: _huge(model, c) for c in [Component(0, "up_proj")]})
    with pytest.raises(BadInput, match="not finite at rollout 5, position 0, with a huge write"):
        measure(model, passage(), [edit], 100)
    model.head_VD.data[3] = torch.inf
    with pytest.raises(BadInput, match="full adapter's logits are not finite in rollout 5"):
        measure(model, passage(), edits_of(model)[:1], 100)


def test_a_passage_without_a_scored_position_gives_zero_sums_for_every_edit(adapted: AdaptedModel) -> None:
    unscored = cut(5, np.arange(25), np.zeros(25, dtype=bool), 25, "assistant")
    edits = edits_of(adapted)
    assert measure(adapted, unscored, edits, 100) == [Sums(0.0, 0.0, 0, 0)] * len(edits)
    assert measure(adapted, unscored, [], 100) == []


def _huge(model: AdaptedModel, component: Component) -> ComponentEdit:
    return ComponentEdit(write_O=torch.full((model.adapter.B[component].shape[0],), 3e38))


def test_a_kl_below_zero_stops_and_says_where(adapted: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from assets.ablation import measure as room

    def wrong(reference: divergence.Reference, hidden_NPD: torch.Tensor, head_VD: torch.Tensor):  # noqa: ANN202
        found = divergence.diverge(reference, hidden_NPD, head_VD)
        found.kl_NP[0, 7] = -2e-4
        return found

    monkeypatch.setattr(room, "diverge", wrong)
    with pytest.raises(BadInput, match=r"KL is -0.0002 at rollout 5, position 7, with L0\.q_proj: negative"):
        measure(adapted, passage(), edits_of(adapted), 100)


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """The peak of bytes allocated on the CPU in the block, by torch's own allocation events."""
    peak = [0]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        yield peak
    now = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # pyright: ignore[reportOptionalMemberAccess]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak[0] = max(peak[0], now)


@pytest.mark.parametrize(("tokens", "rows", "elements"), [(256, 16, 2**20), (512, 4, 2**16), (64, 40, 2**22)])
def test_peak_memory_is_at_most_a_tenth_above_the_prediction(
    adapted: AdaptedModel, monkeypatch: pytest.MonkeyPatch, tokens: int, rows: int, elements: int
) -> None:
    monkeypatch.setitem(divergence.ELEMENTS, "cpu", elements)
    where, edits = passage(tokens), edits_of(adapted)
    shape = Shape.of(adapted, tokens, tokens)
    plan = plan_memory(shape, len({edit.entry for edit in edits}), tokens * rows)
    assert (plan.keep, plan.rows) == ("device", rows)
    with watched_memory() as peak:
        measure(adapted, where, edits, tokens * rows)
    assert 0.5 * plan.peak_bytes < peak[0] + shape.weights <= 1.1 * plan.peak_bytes


def test_the_stream_moves_to_the_host_and_then_is_made_again_as_memory_shrinks(adapted: AdaptedModel) -> None:
    shape = replace(Shape.of(adapted, 2048, 2048), device=torch.device("cuda"), item=2)
    roomy = plan_memory(shape, 128, 2048, total_bytes=10**11)
    tight = plan_memory(shape, 128, 2048, total_bytes=roomy.peak_bytes)
    assert (roomy.keep, tight.keep) == ("device", "host")
    assert roomy.peak_bytes - tight.peak_bytes == stream_bytes(shape, 127)
    on_cpu = replace(shape, device=torch.device("cpu"), item=4)
    assert plan_memory(on_cpu, 128, 2048, total_bytes=10**6).keep == "recompute"
    wide = plan_memory(shape, 128, 2048 * 64, total_bytes=10**11)
    assert plan_memory(shape, 128, 2048 * 64, total_bytes=wide.peak_bytes // 2).rows < wide.rows == 64


PAPER = Shape(1000, 1, 5120, 27648, 5120, 1024, 152064, 2, 0, torch.device("cuda"))
"""A passage of 1,000 tokens through the paper's model, of which one is scored."""


@pytest.mark.parametrize(
    ("changed", "bytes_of_a_token"),
    [
        ({}, 2 * 10240 + 3 * 27648 * 2),
        ({"wide": 1000}, 2 * 10240 + (2 * 4 + 4) * 5120),
        ({"wide": 1000, "heads": 10240}, 2 * 10240 + 4 * (10240 + 1024) * 2),
        ({"item": 4}, 2 * 20480 + 3 * 27648 * 4),
        ({"item": 4, "wide": 1000, "heads": 1000, "kv": 0}, 2 * 20480 + 2 * 4 * 5120),
    ],
    ids=["MLP", "norm", "attention", "MLP in float32", "norm in float32"],
)
def test_a_pass_takes_what_its_largest_moment_takes_of_every_token(changed: dict, bytes_of_a_token: int) -> None:
    shape = replace(PAPER, **changed)
    assert pass_bytes(shape, 3) == 3 * 1000 * bytes_of_a_token
    on_cpu = replace(shape, device=torch.device("cpu"))
    one_row = 4 * 1000 * max(shape.wide, 5120) if shape.item == 2 else 0
    assert pass_bytes(on_cpu, 3) == pass_bytes(shape, 3) + one_row


def test_a_batch_is_halved_no_oftener_than_it_must_be_and_holds_an_edit_at_least() -> None:
    fits = int(pass_bytes(PAPER, 32) / SAFE) + 1
    assert plan_memory(PAPER, 0, 64_000, total_bytes=fits).rows == 32
    assert plan_memory(PAPER, 0, 999, total_bytes=fits).rows == 1


def test_the_widths_and_weights_of_a_loaded_model_are_those_of_its_matrices(adapted: AdaptedModel) -> None:
    shape, attention = Shape.of(adapted, 7, 3), adapted.base.model.layers[0].self_attn
    assert (shape.tokens, shape.scored) == (7, 3)
    assert (shape.heads, shape.kv) == (attention.q_proj.out_features, attention.k_proj.out_features)
    numbers = sum(tensor.numel() for side in (adapted.adapter.A, adapted.adapter.B) for tensor in side.values())
    assert shape.weights == 4 * (sum(weight.numel() for weight in adapted.base.parameters()) + numbers)
