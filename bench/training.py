"""Speed of the adapter's training against trl.SFTTrainer with PEFT, in one run: same model, rollouts, steps, precision.

    python -m bench.training                        # the mini world, 8 steps of 16 rollouts, 3 turns each, one thread
    python -m bench.training --steps 16 --turns 5 --ways ours,ours-unpacked,trl-authors

Every way trains the same rank-1 adapter on the same batches in the same order, so the losses it prints must agree.
trl is installed into an environment of its own below LORASCOPE_HOME that sees this project's packages. `trl-authors` is
the paper's recipe: batch 1, accumulation, checkpointing. The first step is not timed. On a busy machine only tokens per
CPU second compare; they are shown beside those per second.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers import peer_environment

if TYPE_CHECKING:
    from assets.adapter.config import LoraConfig
    from assets.adapter.plan import Step
    from assets.dataset.artifact import S1kDataset
    from resources.models import ModelConfig

TRL = "trl==1.16.0"
WAYS = ("ours", "ours-unpacked", "trl-authors", "trl-no-checkpointing", "trl-padded")
PROJECT = Path(__file__).resolve().parents[1]
BATCH, SEED, RATE = 16, 42, 2e-3


def peer_python() -> Path:
    """Interpreter of the environment with trl; made on first use."""
    from resources.home import find_home

    return peer_environment(find_home().root / "bench" / TRL.replace("==", "-"), ["--no-deps", TRL])


def prepare(folder: Path) -> None:
    """The mini world's rollouts as an artifact."""
    from assets.dataset.config import DatasetConfig
    from assets.dataset.prepare import prepare as prepare_rollouts
    from resources.progress import Progress

    config = DatasetConfig(source="resources/mini_world/data/s1k_mini")
    prepare_rollouts(model=mini(), dataset=config, out=folder, progress=Progress(lambda _: None))


def mini() -> "ModelConfig":
    """The mini world's model section."""
    from resources.models import ModelConfig

    return ModelConfig(name="resources/mini_world/model", dtype="float32")


class Clock:
    """Wall and CPU seconds since the first step ended, and the losses."""

    def __init__(self) -> None:
        self.began: tuple[float, float] | None = None
        self.ended = (0.0, 0.0)
        self.losses: list[float] = []

    def stepped(self) -> None:
        """A step has ended."""
        now = (time.perf_counter(), time.process_time())
        self.began = self.began or now
        self.ended = now

    def report(self, tokens: int) -> dict[str, object]:
        """`tokens`: of the timed steps."""
        assert self.began is not None
        wall, cpu = (end - begin for begin, end in zip(self.began, self.ended, strict=True))
        return {"tokens": tokens, "seconds": wall, "cpu_seconds": cpu, "losses": self.losses}


def recipe(steps: int) -> "tuple[LoraConfig, S1kDataset, list[Step]]":
    """The config, the rollouts and the first `steps` planned steps of the mini world."""
    from assets.adapter.config import LoraConfig
    from assets.adapter.plan import plan_steps
    from assets.dataset.artifact import S1kDataset

    dataset = S1kDataset.open(Path(os.environ["BENCH_ROLLOUTS"]))
    config = LoraConfig(batch_size=BATCH, seed=SEED, learning_rate=RATE, epochs=1, schedule="constant", warmup_ratio=0)
    return config, dataset, plan_steps(dataset.rollout_ids, config)[:steps]


def run_ours(way: str, num_steps: int) -> dict[str, object]:
    """This project's loop; `ours-unpacked` gives every rollout a pass of its own."""
    import torch

    from assets.adapter import loop
    from assets.adapter.examples import Examples
    from assets.adapter.lora_model import wear_adapter
    from assets.adapter.objective import RolloutLoss
    from assets.adapter.parallel import Processes, Replicas
    from resources.compute import ComputeConfig
    from resources.models import load_base

    config, dataset, steps = recipe(num_steps)
    compute = ComputeConfig(profile="cpu", recomputed_layers=0, tokens_per_batch=1 if "unpacked" in way else 32768)
    clock, processes = Clock(), Processes(0, 1, torch.device("cpu"))

    class Timed:
        stopping = False

        def step(self, curve: list[dict[str, float]], *_: object) -> None:
            clock.stepped()
            clock.losses.append(curve[-1]["loss"])

    class NoCheckpoints:
        def resume(self, *_: object) -> list[dict[str, float]]:
            return []

        def worth_while(self) -> bool:
            return False

    objective = RolloutLoss(wear_adapter(load_base(mini(), "cpu"), config, "mini"), processes.device, 0, None)
    parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    run = loop.Run(
        objective, parameters, Examples(dataset, None), config, compute, processes, Replicas(processes),
        NoCheckpoints(), Timed(),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    loop.train(run, steps)
    return clock.report(sum(dataset.lengths[r] for step in steps[1:] for r in step.rollout_ids))


def run_trl(way: str, num_steps: int) -> dict[str, object]:
    """trl.SFTTrainer with PEFT on the same tokenised rows, in the same order."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig as PeftConfig
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

    from resources.components import PROJECTIONS
    from resources.models import place

    config, dataset, steps = recipe(num_steps)
    clock = Clock()

    class Watch(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            clock.stepped()

        def on_log(self, *_: object, **others: Any) -> None:
            logs = others["logs"]
            clock.losses += [logs["loss"]] if "loss" in logs else []

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: object) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    rows = [
        {
            "input_ids": dataset.token_ids(r).tolist(),
            "labels": [int(t) if m else -100 for t, m in zip(dataset.token_ids(r), dataset.loss_mask(r), strict=True)],
        }
        for step in steps
        for r in step.rollout_ids
    ]
    per_device = BATCH if way == "trl-padded" else 1
    base = AutoModelForCausalLM.from_pretrained(place(mini().name))
    torch.manual_seed(SEED)
    trainer = InOrder(
        model=base,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=BATCH // per_device,
            gradient_checkpointing=way == "trl-authors",
            gradient_checkpointing_kwargs={"use_reentrant": False} if way == "trl-authors" else None,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            adam_beta1=config.beta1,
            adam_beta2=config.beta2,
            weight_decay=config.weight_decay,
            max_steps=len(steps),
            max_length=None,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(place(mini().name)),
        peft_config=PeftConfig(r=1, lora_alpha=16, use_rslora=True, target_modules=list(PROJECTIONS)),
        callbacks=[Watch()],
    )
    trainer.train()
    return clock.report(sum(dataset.lengths[r] for step in steps[1:] for r in step.rollout_ids))


def measure(way: str, steps: int, rollouts: Path) -> dict:
    """One turn of one way in a process of its own, on one thread."""
    python = peer_python() if way.startswith("trl") else sys.executable
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "BENCH_ROLLOUTS": str(rollouts)}
        command = [python, "-m", "bench.training", "--worker", way, "--steps", str(steps), "--answer", str(answer)]
        done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{way} failed:\n{done.stderr[-3000:]}")
        return json.loads(answer.read_text())


def main() -> None:
    """Measure every way, turn by turn, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--worker")
    parser.add_argument("--answer", type=Path)
    options = parser.parse_args()
    if options.worker:
        run = run_trl if options.worker.startswith("trl") else run_ours
        options.answer.write_text(json.dumps(run(options.worker, options.steps)))
        return
    ways = options.ways.split(",")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        turns = [{way: measure(way, options.steps, Path(folder)) for way in ways} for _ in range(options.turns)]
    print("| way | tokens per CPU s | tokens per s | ours is faster by (CPU; range over turns) | first and last loss |")
    print("|---|---|---|---|---|")
    for way in ways:
        cpu = [turn[way]["tokens"] / turn[way]["cpu_seconds"] for turn in turns]
        wall = statistics.median(turn[way]["tokens"] / turn[way]["seconds"] for turn in turns)
        ratios = sorted(turn[way]["cpu_seconds"] / turn[ways[0]]["cpu_seconds"] for turn in turns)
        losses = turns[0][way]["losses"]
        print(
            f"| {way} | {statistics.median(cpu):.0f} | {wall:.0f} | {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f}) | {losses[0]:.4f}, {losses[-1]:.4f} |"
        )


if __name__ == "__main__":
    main()
