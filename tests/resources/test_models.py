"""Models that our passes do not compute, and adapters of other models, are refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from resources.adapters import WEIGHTS, weight_key
from resources.components import Component
from resources.errors import BadInput
from resources.models import ModelConfig, load_adapted, load_architecture, load_base

WIDER = [Component(layer, projection) for layer in (0, 1) for projection in ("q_proj", "k_proj", "v_proj")]


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_a_model_with_another_gate_than_qwens_is_refused_by_name(tiny_model: Path, tmp_path: Path, act: str) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": act}))
    with pytest.raises(BadInput, match=rf"{tmp_path} has hidden_act {act} instead of silu: use a model of the Qwen2"):
        load_architecture(ModelConfig(name=str(tmp_path)))


def test_a_model_that_would_wear_the_adapter_beside_it_is_refused(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "merged"))
    shutil.copytree(tiny_adapter, folder, dirs_exist_ok=True)
    with pytest.raises(BadInput, match=rf"{folder} holds an adapter beside the model.*move adapter_config\.json"):
        load_base(ModelConfig(name=str(folder), dtype="float32"), "cpu")


def test_an_adapter_is_not_read_over_the_device_that_peft_guesses(
    tiny_model: Path, tiny_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first GPU, whichever the model lies on."""
    monkeypatch.setattr("peft.peft_model.infer_device", lambda: "meta")
    adapted = load_adapted(ModelConfig(name=str(tiny_model), dtype="float32"), tiny_adapter, "cpu")
    assert {parameter.device.type for parameter in adapted.parameters()} == {"cpu"}


def test_an_adapter_of_another_model_is_refused_in_one_short_line(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    tensors = load_file(folder / WEIGHTS)
    wrong = {weight_key(component, "A"): torch.ones(1, 64) for component in WIDER}
    save_file(tensors | wrong, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(BadInput, match="does not fit") as error:
        load_adapted(ModelConfig(name=str(tiny_model), dtype="float32"), folder, "cpu")
    _, reason = str(error.value).split(f"{tiny_model}: ")
    assert reason.startswith("Error(s) in loading state_dict for")
    assert reason.isprintable()
    assert len(reason) <= 321
