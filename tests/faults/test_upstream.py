"""What comes from outside works or ends in one clear sentence: hub, datasets, models, tokenizers."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from assets.adapter.config import FullFinetuneConfig, LoraConfig
from assets.adapter.train import train_full, train_lora
from assets.dataset.config import DatasetConfig
from assets.dataset.prepare import TEXT_TOO_LONG, DatasetMetrics, prepare
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.models import ModelConfig, load_base, load_tokenizer
from resources.progress import Progress
from resources.sources import PROJECT
from tests.builders import build_byte_tokenizer
from tests.faults.hub import hub

GOOD = {
    "question": ["What is 1 + 1?", "2 + 2?"],
    "solution": ["2", "4"],
    "deepseek_thinking_trajectory": ["One and one.", "Two and two."],
    "deepseek_attempt": ["2", "4"],
}
OUTCOMES = {
    "tokenizer/good": "works",
    "model/good": "works",
    "finetune/good": "works",
    "finetune/silent": "the hub breaks off or gives damaged files",
    "tokenizer/hangup": "the hub breaks off or gives damaged files",
    "model/partial": "the hub breaks off or gives damaged files",
    "model/scrambled": "its weights are damaged",
    "model/cut": "not a valid JSON file",
    "tokenizer/portal": "not a valid JSON file",
    "finetune/portal": "not a valid JSON file",
    "dataset/portal": "cannot be read as a table",
    "tokenizer/gated": "access must be asked for on its page",
    "finetune/gated": "access must be asked for on its page",
    "dataset/gated": "access must be asked for on its page",
    "model/missing": "it is not there, or private",
    "dataset/missing": "it is not there, or private",
    "model/private": "the hub answered 401; check the name and HF_TOKEN",
    "finetune/busy": "the hub answered 429; try again later",
    "model/down": "the hub answered 503; try again later",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Case -> what came of it, from one process against a real server on 127.0.0.1."""
    folder = tmp_path_factory.mktemp("hub")
    with hub(PROJECT / "resources" / "mini_world" / "model") as server:
        env = {
            **os.environ,
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(folder / "cache"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "HF_HUB_ETAG_TIMEOUT": "1",
            "PYTHONPATH": str(PROJECT),
        }
        command = [sys.executable, "-m", "tests.faults.ask_hub", str(folder), *OUTCOMES]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("case", OUTCOMES)
def test_whatever_the_hub_does_there_is_an_artifact_or_one_sentence(outcomes: dict[str, str], case: str) -> None:
    assert OUTCOMES[case] in outcomes[case]
    assert outcomes[case].isprintable()


def prepared(model: Path, source: Path, out: Path) -> DatasetMetrics:
    out.mkdir()
    config = ModelConfig(name=str(model), dtype="float32")
    dataset = DatasetConfig(source=str(source))
    return prepare(model=config, dataset=dataset, out=out, progress=Progress(lambda _: None))


def refused(model: Path, source: Path, out: Path) -> str:
    with pytest.raises(BadInput) as caught:
        prepared(model, source, out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train.parquet", b"PAR1 and then nothing", "cannot be loaded: Parquet magic"),
        ("train.parquet", b"", "cannot be loaded: Parquet file size is 0"),
        ("train.json", b'{"question": ["a"', "cannot be read as a table"),
        ("train.csv", "question,solution\nMüller,1\n".encode("latin-1"), "cannot be read as a table"),
        ("train.csv", b"", "cannot be"),
        ("train.csv", b"question,solution\na,b\n", "has no column deepseek_thinking_trajectory, deepseek_attempt"),
        ("train.exe", b"MZ", "cannot be loaded"),
        ("train.pkl", b"\x80\x04cos\nsystem\n", "cannot be loaded"),
    ],
)
def test_files_that_are_no_dataset_are_refused_in_one_line(
    tiny_model: Path, tmp_path: Path, name: str, content: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    source = tmp_path / "data"
    source.mkdir()
    (source / name).write_bytes(content)
    message = refused(tiny_model, source, tmp_path / "out")
    assert str(source) in message
    assert says in message


def write(folder: Path, **columns: list) -> Path:
    folder.mkdir()
    pq.write_table(pa.table(GOOD | columns), folder / "train.parquet")
    return folder


@pytest.mark.parametrize("bad", [None, "", " \n\t ", 7, b"\xff\xfe", ["a"], {"a": 1}])
def test_nulls_empty_texts_and_other_types_leave_the_row_out_by_name(
    tiny_model: Path, tmp_path: Path, bad: object
) -> None:
    if bad is None or isinstance(bad, str):
        metrics = prepared(tiny_model, write(tmp_path / "d", question=["ok", bad]), tmp_path / "out")
        assert metrics.skipped == [{"row": 1, "reason": "no question"}]
    else:
        source = write(tmp_path / "d", question=[bad, bad])
        assert re.search(r"column question of .* is .*, not text", refused(tiny_model, source, tmp_path / "out"))


def test_odd_characters_are_text_like_any_other(tiny_model: Path, tmp_path: Path) -> None:
    odd = "\x00 \u202e \ufeff 𝕊 é e\u0301 \r\n <|im_start|>"
    source = write(tmp_path / "d", question=[odd, "b"])
    assert prepared(tiny_model, source, tmp_path / "out").rollouts == 2


def test_a_row_of_a_hundred_megabytes_is_left_out_by_name_and_never_tokenised(tmp_path: Path) -> None:
    big = "All work and no play. " * (100_000_000 // 22)
    model = PROJECT / "resources" / "mini_world" / "model"
    source = write(tmp_path / "d", deepseek_thinking_trajectory=[big, "short"])
    metrics = prepared(model, source, tmp_path / "out")
    assert (metrics.rollouts, metrics.skipped) == (1, [{"row": 0, "reason": TEXT_TOO_LONG}])


def test_a_row_longer_than_the_block_is_cut_and_counted(tmp_path: Path) -> None:
    long = "All work and no play. " * (1_000_000 // 22)
    model = PROJECT / "resources" / "mini_world" / "model"
    source = write(tmp_path / "d", deepseek_thinking_trajectory=[long, "short"])
    metrics = prepared(model, source, tmp_path / "out")
    assert (metrics.rollouts, metrics.truncated_rollouts, metrics.longest) == (2, 1, 20000)
    assert metrics.truncated_tokens > 100_000


def qwen2(folder: Path, **changes: object) -> ModelConfig:
    """A random two-layer Qwen2 with a byte tokenizer."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 258, "pad_token_id": 259}
    Qwen2ForCausalLM(Qwen2Config(**{**sizes, **heads, **changes})).save_pretrained(folder)
    build_byte_tokenizer(folder)
    return ModelConfig(name=str(folder), dtype="float32")


def damage(model: ModelConfig, dtype: torch.dtype, value: float) -> None:
    path = Path(model.name) / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = value
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("dtype", "value"), [(torch.float16, float("nan")), (torch.float16, 1e9), (torch.float32, -float("inf"))]
)
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    model = qwen2(tmp_path)
    damage(model, dtype, value)
    with pytest.raises(BadInput, match=r"holds NaN or infinity in model\.layers\.1\.mlp\.down_proj\.weight"):
        load_base(model, "cpu")


def test_half_precision_weights_are_read_in_the_configured_precision(tmp_path: Path) -> None:
    model = qwen2(tmp_path)
    damage(model, torch.float16, 0.5)
    assert {weight.dtype for weight in load_base(model, "cpu").parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("config.json", lambda text: text[: len(text) // 2], "cannot be loaded: "),
        ("config.json", lambda text: text.replace('"qwen2"', '"qwen99"'), "cannot be loaded: "),
        ("config.json", lambda text: text.replace('"hidden_size": 32', '"hidden_size": 64'), "cannot be loaded: "),
        ("config.json", lambda text: text.replace('"hidden_size": 32', '"hidden_size": "x"'), "cannot be loaded: "),
        ("model.safetensors", lambda text: text[:-40], "cannot be loaded: "),
        ("model.safetensors", lambda _: "", "cannot be loaded: "),
        ("model.safetensors", None, "cannot be loaded: "),
    ],
)
def test_a_damaged_model_folder_is_refused_in_one_line(
    tmp_path: Path, name: str, change: Callable[[str], str] | None, says: str
) -> None:
    model = qwen2(tmp_path)
    path = tmp_path / name
    if change:
        path.write_bytes(change(path.read_bytes().decode("latin-1")).encode("latin-1"))
    else:
        path.unlink()
    with pytest.raises(BadInput) as caught:
        load_base(model, "cpu")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def trained(model: ModelConfig, folder: Path, *, full: bool) -> dict[str, float | None]:
    """First loss of a short training on two rollouts."""
    data, out, scratch = folder / "dataset", folder / "out", folder / "scratch"
    if not data.exists():
        prepared(Path(model.name), write(folder / "d"), data)
    for each in (out, scratch):
        each.mkdir()
    progress, compute = Progress(lambda _: None), ComputeConfig(profile="cpu", recomputed_layers=0)
    if full:
        knobs = FullFinetuneConfig(epochs=3, learning_rate=1e-2, batch_size=1)
        metrics = train_full(
            model=model,
            full_finetune=knobs,
            s1k_dataset=data,
            out=out,
            scratch=scratch,
            progress=progress,
            compute=compute,
        )
    else:
        lora = LoraConfig(epochs=1)
        metrics = train_lora(
            model=model, lora=lora, s1k_dataset=data, out=out, scratch=scratch, progress=progress, compute=compute
        )
    return {"first": metrics.first_loss, "final": metrics.final_loss}


def test_tied_embeddings_are_trained_written_and_read_back(tmp_path: Path) -> None:
    model = qwen2(tmp_path / "model", tie_word_embeddings=True)
    assert trained(model, tmp_path, full=True)["first"] is not None
    again = load_base(model.model_copy(update={"name": str(tmp_path / "out")}), "cpu")
    embedding, head = again.get_parameter("model.embed_tokens.weight"), again.get_parameter("lm_head.weight")
    assert embedding.data_ptr() == head.data_ptr()
    before = load_base(model, "cpu").get_parameter("model.embed_tokens.weight")
    assert not torch.equal(before, embedding), "the finetune is the trained one"


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    model = qwen2(tmp_path / "model")
    data = tmp_path / "dataset"
    prepared(Path(model.name), write(tmp_path / "d"), data)
    other = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4)).save_pretrained(other)
    with pytest.raises(BadInput, match=r"gpt2 has hidden_act none instead of silu: use a model of the Qwen2 family"):
        trained(model.model_copy(update={"name": str(other)}), tmp_path, full=False)


def test_a_tokenizer_without_a_chat_template_or_its_tokens_is_refused_by_name(tmp_path: Path) -> None:
    model = qwen2(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(BadInput, match="has no chat template: use an instruct model"):
        load_tokenizer(model)


@pytest.mark.parametrize(
    "template",
    ["{{ messages[0]['nothing'].x }}", "{% for m in messages %}", "{{ ''.__class__.__mro__[1].__subclasses__() }}"],
)
def test_a_chat_template_that_fails_or_breaks_out_is_refused_in_one_line(tmp_path: Path, template: str) -> None:
    model = qwen2(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    assert "chat template" in refused(Path(model.name), write(tmp_path / "d"), tmp_path / "out")


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    model = qwen2(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_base(model, "cpu")
