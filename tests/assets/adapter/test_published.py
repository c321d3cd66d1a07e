"""What is taken from where it was published: linked from the hub's cache where that works, else copied, if whole."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from assets.adapter.config import FullFinetuneConfig, LoraConfig
from resources.adapters import CONFIG, weight_key
from resources.adapters import WEIGHTS as ADAPTER
from resources.components import Component
from resources.errors import BadInput
from resources.models import load_base, load_weights
from tests.assets.adapter.conftest import World

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def published(world: World, tmp_path: Path) -> Path:
    """A finetune as the hub's cache holds one: names that point to blobs."""
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(Path(world.model.name).iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blobs / str(number))
    return snapshot


def test_a_blob_of_the_hubs_cache_is_linked(world: World, published: Path) -> None:
    out, _ = world.full("linked", FullFinetuneConfig(source=str(published)))
    assert (out / WEIGHTS).samefile(published / WEIGHTS)
    assert not (out / WEIGHTS).is_symlink()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_a_blob_that_cannot_be_linked_is_copied(
    world: World, published: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.link", refuse)
    out, _ = world.full(f"copied-{number}", FullFinetuneConfig(source=str(published)))
    assert (out / WEIGHTS).read_bytes() == (published / WEIGHTS).read_bytes()
    assert not (out / WEIGHTS).samefile(published / WEIGHTS)


def change(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def put(path: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors of a safetensors file; None takes one away."""
    found = load_file(path) | tensors
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, path, {"format": "pt"})


def test_a_published_finetune_counts_all_its_parameters_as_trained(world: World, published: Path) -> None:
    """Embeddings 2 x 260 x 32; a layer 1056 + 2 x 528 + 1024 + 3 x 1536 + 64; the last norm 32."""
    _, metrics = world.full("counted", FullFinetuneConfig(source=str(published)))
    assert (metrics.trainable_parameters, metrics.parameters, metrics.trainable_share) == (32_288, 32_288, 1.0)


def test_a_published_adapter_counts_its_own_parameters_beside_the_models(world: World, tiny_adapter: Path) -> None:
    """A layer: q and o 32 + 32, k and v 32 + 16, the MLP's three 32 + 48."""
    _, metrics = world.lora("counted", LoraConfig(source=str(tiny_adapter)))
    assert (metrics.trainable_parameters, metrics.parameters) == (928, 32_288 + 928)
    assert metrics.trainable_share == pytest.approx(928 / 33_216)


@pytest.mark.parametrize("theirs", ["Qwen/Qwen2.5-7B", "/models/{model}/", "", None])
def test_the_log_says_where_a_published_adapter_names_another_base_model(
    world: World, tiny_adapter: Path, tmp_path: Path, theirs: str | None
) -> None:
    source = tmp_path / "taken"
    shutil.copytree(tiny_adapter, source)
    config = json.loads((source / "adapter_config.json").read_text())
    named = theirs and theirs.format(model=Path(world.model.name).name)
    (source / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": named}))
    world.lines.clear()
    world.lora("worn", LoraConfig(source=str(source)))
    said = (
        f"{source} was trained on Qwen/Qwen2.5-7B, says its adapter_config.json, and model.name is {world.model.name}: "
        "worn by other weights it means nothing"
    )
    assert world.lines == ([said] if theirs == "Qwen/Qwen2.5-7B" else [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "llama"}, r"has model_type llama, but .* has qwen2: it is no finetune of that model"),
        ({"head_dim": 16}, r"has head_dim 16, but .*: it is no finetune of that model"),
        ({"hidden_act": "gelu"}, "has hidden_act gelu instead of silu"),
        ({"vocab_size": 300}, r"holds model\.embed_tokens\.weight as \(260, 32\), not \(300, 32\)"),
    ],
)
def test_a_published_model_of_another_architecture_is_refused(
    world: World, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    source = Path(shutil.copytree(world.model.name, tmp_path / "published"))
    change(source / "config.json", **settings)
    with pytest.raises(BadInput, match=message):
        world.full("taken", FullFinetuneConfig(source=str(source)))
    assert not list((world.folder / "taken").iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: os.truncate(path, 5000), r"model\.safetensors is damaged \(.*\): download it anew"),
        (lambda path: os.truncate(path, 0), r"model\.safetensors is damaged \(.*\): download it anew"),
        (
            lambda path: put(path, **{"lm_head.weight": None, "model.norm.weight": None}),
            r"lacks 2 of the 27 tensors of its model, (lm_head|model\.norm)\.weight for one",
        ),
        (
            lambda path: put(path, **{"model.norm.weight": torch.ones(31)}),
            r"holds model\.norm\.weight as \(31,\), not \(32,\)",
        ),
    ],
    ids=["truncated", "empty", "tensors missing", "another shape"],
)
def test_a_published_model_that_is_not_whole_is_refused(
    world: World, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    source = Path(shutil.copytree(world.model.name, tmp_path / "published"))
    damage(source / WEIGHTS)
    with pytest.raises(BadInput, match=message):
        world.full("taken", FullFinetuneConfig(source=str(source)))
    assert not list((world.folder / "taken").iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / INDEX).unlink(),
            r"no model\.safetensors, and no .*index\.json that names its shards",
        ),
        (lambda folder: (folder / INDEX).write_text("{"), r"no .*index\.json that names its shards"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": []}'), r"no .*index\.json that names its shards"),
        (
            lambda folder: (folder / "model-00003-of-00006.safetensors").rename(folder / "model-3.safetensors"),
            r"no model-00003-of-00006\.safetensors, which its model\.safetensors\.index\.json names",
        ),
    ],
    ids=["no index", "damaged", "of another kind", "a renamed shard"],
)
def test_shards_that_transformers_would_not_find_are_refused(
    world: World, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    source = tmp_path / "published"
    load_base(world.model, "cpu").save_pretrained(source, max_shard_size="20KB")
    out, _ = world.full("whole", FullFinetuneConfig(source=str(source)))
    assert len(list(out.glob("*.safetensors"))) == 6
    damage(source)
    with pytest.raises(BadInput, match=message):
        world.full("taken", FullFinetuneConfig(source=str(source)))


def test_an_adapter_beside_a_models_config_is_no_finetune(world: World, tiny_adapter: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_adapter, tmp_path / "published"))
    shutil.copyfile(Path(world.model.name) / "config.json", source / "config.json")
    with pytest.raises(BadInput, match=r"has no model\.safetensors, .* name another source for full_finetune"):
        world.full("taken", FullFinetuneConfig(source=str(source)))


def test_an_adapter_beside_a_published_model_is_not_worn_by_it(
    world: World, published: Path, tiny_adapter: Path
) -> None:
    """A merged model is often saved into the folder of its adapter."""
    for name in (CONFIG, ADAPTER):
        shutil.copyfile(tiny_adapter / name, published / name)
    out, _ = world.full("taken", FullFinetuneConfig(source=str(published)))
    taken = load_weights(out, world.model, "cpu").state_dict()
    assert taken.keys() == load_file(published / WEIGHTS).keys()


@pytest.mark.parametrize("indexed", [True, False])
def test_shards_of_another_model_beside_a_whole_file_are_not_taken(
    world: World, published: Path, indexed: bool
) -> None:
    """transformers reads the whole file, vLLM the shards of an index, or all files where there is none."""
    other = "model-00001-of-00001.safetensors"
    save_file({name: torch.zeros_like(t) for name, t in load_file(published / WEIGHTS).items()}, published / other)
    if indexed:
        (published / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(load_file(published / WEIGHTS), other)}))
    out, _ = world.full("taken", FullFinetuneConfig(source=str(published)))
    assert [path.name for path in out.glob("*.safetensors*")] == [WEIGHTS]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["A", "B"])
def test_a_published_adapter_that_diverged_is_refused(
    world: World, tiny_adapter: Path, tmp_path: Path, side: str, value: float
) -> None:
    source = Path(shutil.copytree(tiny_adapter, tmp_path / "published"))
    key = weight_key(Component(1, "k_proj"), side)
    put(source / ADAPTER, **{key: torch.full_like(load_file(source / ADAPTER)[key], value)})
    with pytest.raises(BadInput, match=r"holds NaN or infinity in L1\.k_proj: its training diverged"):
        world.lora("taken", LoraConfig(source=str(source)))


@pytest.mark.parametrize(
    ("settings", "component"),
    [
        ({"target_modules": ["q_proj"]}, r"L0\.k_proj"),
        ({"target_modules": r".*\.layers\.0\..*_proj"}, r"L1\.q_proj"),
        ({"layers_to_transform": [0]}, r"L1\.q_proj"),
        ({"target_modules": None}, r"L0\.k_proj"),
    ],
)
def test_a_published_pair_that_peft_would_leave_out_is_refused(
    world: World, tiny_adapter: Path, tmp_path: Path, settings: dict[str, object], component: str
) -> None:
    source = Path(shutil.copytree(tiny_adapter, tmp_path / "published"))
    change(source / CONFIG, **settings)
    with pytest.raises(BadInput, match=rf"holds {component}, which its adapter_config\.json does not target"):
        world.lora("taken", LoraConfig(source=str(source)))


@pytest.mark.parametrize(
    "settings", [{"target_modules": "["}, {"target_modules": 5}, {"layers_to_transform": "1"}, {"layers_pattern": "h"}]
)
def test_a_published_adapter_that_peft_cannot_place_is_refused(
    world: World, tiny_adapter: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    source = Path(shutil.copytree(tiny_adapter, tmp_path / "published"))
    change(source / CONFIG, **settings)
    with pytest.raises(BadInput, match=r"adapter_config\.json of .* cannot be used by PEFT \("):
        world.lora("taken", LoraConfig(source=str(source)))
