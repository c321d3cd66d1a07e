"""Adapters read from files agree with PEFT's own forward, and ablated copies add nothing where B is zero."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import Qwen2ForCausalLM

from resources.adapters import CONFIG, WEIGHTS, Adapter, write_ablated
from resources.components import Component, components
from resources.errors import BadInput
from tests.builders import build_random_adapter


def worn(model_folder: Path, adapter: Path) -> PeftModel:
    return PeftModel.from_pretrained(Qwen2ForCausalLM.from_pretrained(model_folder), str(adapter)).eval()


@pytest.mark.parametrize("rank", [1, 4])
def test_scale_times_B_times_A_is_what_peft_adds_to_the_matrix(tiny_model: Path, tmp_path: Path, rank: int) -> None:
    folder = build_random_adapter(tmp_path, tiny_model, rank=rank)
    adapter = Adapter.open(folder)
    model = worn(tiny_model, folder).get_base_model()
    assert adapter.rank == rank
    assert adapter.components == components(2)
    for component in adapter.components:
        layer = model.get_submodule(component.module)
        assert isinstance(layer, LoraLayer)
        delta_OI = adapter.scale * adapter.B[component] @ adapter.A[component]
        assert delta_OI.abs().max() > 0
        torch.testing.assert_close(delta_OI, layer.get_delta_weight("default"))


def test_the_papers_scale_is_alpha_over_the_root_of_the_rank(tiny_model: Path, tmp_path: Path) -> None:
    assert Adapter.open(build_random_adapter(tmp_path / "one", tiny_model)).scale == 16
    assert Adapter.open(build_random_adapter(tmp_path / "four", tiny_model, rank=4)).scale == 8


def test_without_rslora_the_scale_is_alpha_over_the_rank(tiny_model: Path, tmp_path: Path) -> None:
    folder = build_random_adapter(tmp_path, tiny_model, rank=4)
    change(folder, use_rslora=False)
    assert Adapter.open(folder).scale == 4


def test_an_ablated_copy_equals_zeroing_B_inside_peft(tiny_model: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    gone = [Component(0, "gate_proj"), Component(1, "q_proj")]
    write_ablated(tiny_adapter, tmp_path, gone)
    ids = torch.arange(40)[None]
    reference = worn(tiny_model, tiny_adapter)
    with torch.no_grad():
        full = reference(ids).logits
        for component in gone:
            layer = reference.get_base_model().get_submodule(component.module)
            layer.get_submodule("lora_B.default").weight.zero_()
        expected = reference(ids).logits
        found = worn(tiny_model, tmp_path)(ids).logits
    assert not torch.allclose(full, expected)
    assert torch.equal(found, expected)
    kept = Adapter.open(tmp_path)
    assert all(bool(kept.B[c].any()) == (c not in gone) for c in kept.components)
    assert all(torch.equal(kept.A[c], Adapter.open(tiny_adapter).A[c]) for c in kept.components)


def test_ablating_what_the_adapter_lacks_is_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"L7\.up_proj"):
        write_ablated(tiny_adapter, tmp_path / "out", [Component(7, "up_proj")])
    assert not (tmp_path / "out").exists()


def change(folder: Path, **settings: object) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"use_dora": True}, "use_dora"),
        ({"r": 2}, "rank 2"),
    ],
)
def test_adapters_of_another_kind_are_refused(
    tiny_adapter: Path, tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    change(folder, **settings)
    with pytest.raises(BadInput, match=words):
        Adapter.open(folder)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "OLoRA", "corda", "loftq", "lora_ga"])
def test_an_adapter_of_changed_base_weights_is_refused_with_the_way_out(
    tiny_adapter: Path, tmp_path: Path, init: str
) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    change(folder, init_lora_weights=init)
    with pytest.raises(BadInput, match=f"init_lora_weights: {init}.*path_initial_model_for_weight_conversion"):
        Adapter.open(folder)


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_an_adapter_of_the_base_weights_as_they_are_is_read_whatever_it_began_with(
    tiny_adapter: Path, tmp_path: Path, init: object
) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    change(folder, init_lora_weights=init)
    assert Adapter.open(folder).components == Adapter.open(tiny_adapter).components


@pytest.mark.parametrize("init", [True, "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora"])
def test_what_is_refused_is_what_peft_changes_the_base_weights_for(
    tiny_model: Path, tmp_path: Path, init: bool | str
) -> None:
    base = Qwen2ForCausalLM.from_pretrained(tiny_model)
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=init, task_type="CAUSAL_LM")  # pyright: ignore[reportArgumentType]
    model = get_peft_model(base, config)
    model.save_pretrained(str(tmp_path))
    unworn = model.unload()
    changed = any(not torch.equal(weight, before[name]) for name, weight in unworn.named_parameters())
    with pytest.raises(BadInput, match="init_lora_weights") if changed else nullcontext():
        Adapter.open(tmp_path)


def test_an_unfinished_folder_is_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=CONFIG):
        Adapter.open(tmp_path)
    shutil.copyfile(tiny_adapter / CONFIG, tmp_path / CONFIG)
    with pytest.raises(BadInput, match=WEIGHTS):
        Adapter.open(tmp_path)
