"""Adapters read from files agree with PEFT's own forward, and ablated copies add nothing where B is zero."""

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from safetensors.torch import load_file, save_file
from transformers import Qwen2ForCausalLM

from resources.adapters import CONFIG, WEIGHTS, Adapter, weight_key, write_ablated
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
        assert isinstance(layer, Linear)
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
            reference.get_base_model().get_parameter(f"{component.module}.lora_B.default.weight").zero_()
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
        ({"peft_type": "IA3", "lora_alpha": None}, "IA3, not LORA"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "sets lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"alora_invocation_tokens": [1, 2]}, "sets alora_invocation_tokens"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "sets layer_replication"),
        ({"trainable_token_indices": [3]}, "sets trainable_token_indices"),
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


def test_pickled_weights_are_refused_with_the_way_out(tiny_adapter: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_adapter, folder)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(BadInput, match=r"nor are pickled weights \(\.bin\) read: load it with PEFT and save it again$"):
        Adapter.open(folder)


def test_an_unfinished_folder_is_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=CONFIG):
        Adapter.open(tmp_path)
    shutil.copyfile(tiny_adapter / CONFIG, tmp_path / CONFIG)
    with pytest.raises(BadInput, match=WEIGHTS):
        Adapter.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"peft_type": "LORA", "lora_alpha": 16}', "r: Field required"),
        ('{"peft_type": "LORA", "lora_alpha": 16, "r": 0}', "r: Input should be greater than or equal to 1"),
        ('{"peft_type": "LORA", "lora_alpha": 16, "r": 1.0}', "r: Input should be a valid integer"),
        ('{"peft_type": "LORA", "lora_alpha": "16", "r": 1}', "lora_alpha: Input should be a valid number"),
        ('{"peft_type": "LORA", "r": 1}', "lora_alpha: Field required"),
        ('{"peft_type": "LORA", "r": 1, "lora_alpha": null}', "lora_alpha: Input should be a valid number"),
        ('{"peft_type": "LORA", "r": 1, "lora_alpha": NaN}', "lora_alpha: Input should be a finite number"),
        ("{oops", r"is no JSON \(Expecting property name"),
        ("", r"is no JSON \(Expecting value"),
        ("[]", "the whole: Input should be a valid dictionary"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_with_what_is_wrong(
    tiny_adapter: Path, tmp_path: Path, text: str, message: str
) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    (folder / CONFIG).write_text(text)
    with pytest.raises(BadInput, match=rf"adapter_config\.json:? {message}.*copy the adapter anew"):
        Adapter.open(folder)


@pytest.mark.parametrize("size", [0, 1000])
def test_damaged_weights_are_refused_by_file(tiny_adapter: Path, tmp_path: Path, size: int) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    os.truncate(folder / WEIGHTS, size)
    message = r"adapter_model\.safetensors is damaged \(.*\): copy the adapter anew"
    with pytest.raises(BadInput, match=message):
        Adapter.open(folder)
    with pytest.raises(BadInput, match=message):
        write_ablated(folder, tmp_path / "out", [Component(0, "q_proj")])


def test_a_side_that_is_no_matrix_is_refused_by_its_component(tiny_adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    tensors = load_file(folder / WEIGHTS)
    key = weight_key(Component(1, "o_proj"), "B")
    save_file(tensors | {key: tensors[key].flatten()}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(BadInput, match=r"L1\.o_proj is not of rank 1"):
        Adapter.open(folder)
