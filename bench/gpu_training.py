"""Speed and memory of the adapter's training on one GPU, for randomly initialised Qwen2.5 shapes, against the recipe.

    PYTORCH_ALLOC_CONF=expandable_segments:True python -m bench.gpu_training --shape 32b --recomputed-layers 64,28
    python -m bench.gpu_training --shape 7b --recomputed-layers 28,8 --profile
    python -m bench.gpu_training --shape toy --device cpu --tokens 64 --steps 2

Needs little beside this repository (bench/gpu_versions.py); no weights, no data. A step has 2 rollouts of about
10,000 tokens, as each of the paper's 8 GPUs. `recipe` is the paper's training script on one GPU: PEFT's forward under
bf16 autocast, SDPA, batch 1 with accumulation, checkpointing, full logits. Ours runs once per number of recomputed
layers: fewer are faster and take more memory. MFU counts what the mathematics needs (4 FLOP per frozen weight and
token, causal attention); HFU also what is recomputed: in ours all of a layer but the MLP's last matrix. The expected
memory is `assets.adapter.memory`'s, which refuses a job before it is launched. One step of each way warms up and is not
timed. A way that does not fit says so.
"""

import argparse
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from assets.adapter import loop, memory
from assets.adapter.config import LoraConfig
from assets.adapter.examples import Pass
from assets.adapter.flops import Work, peak_flops, training_work
from assets.adapter.lora_model import wear_adapter
from assets.adapter.objective import RolloutLoss
from assets.adapter.parallel import Processes, Replicas
from assets.adapter.plan import Step
from bench.gpu_clock import wall_seconds
from bench.gpu_shapes import SHAPES, qwen2
from bench.gpu_versions import accept_older
from resources.compute import ComputeConfig
from resources.memory import Setup
from resources.models import ModelConfig
from resources.packing import batches_by_length, pack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT = 0.02
"""Share of a rollout that is prompt and has no loss (s1K-1.1: about 200 of 10,000 tokens)."""


@dataclass(frozen=True)
class RandomRollouts:
    """Stands in for `assets.adapter.examples.Examples` without a dataset."""

    lengths: dict[int, int]
    predicted: dict[int, int]
    ids: dict[int, np.ndarray]

    def sizes(self, rollout_ids: Sequence[int]) -> tuple[list[int], int]:
        """Lengths, and the number of predicted tokens."""
        return [self.lengths[r] for r in rollout_ids], sum(self.predicted[r] for r in rollout_ids)

    def one_pass(self, rollout_ids: Sequence[int]) -> Pass:
        """The rollouts packed; all but the prompt is predicted."""
        packed = pack([self.ids[r] for r in rollout_ids])
        ends = packed.cu_seqlens[1:]
        target_at = np.concatenate(
            [np.arange(end - self.predicted[r], end) for r, end in zip(rollout_ids, ends, strict=True)]
        )
        return Pass(packed, target_at - 1, packed.input_ids_1T[0, target_at])


def random_rollouts(count: int, tokens: int, vocabulary: int) -> RandomRollouts:
    """`count` rollouts whose lengths spread by a fifth around `tokens`."""
    rng = np.random.default_rng(0)
    lengths = {r: max(4, int(tokens * rng.uniform(0.8, 1.2))) for r in range(count)}
    predicted = {r: length - max(1, int(length * PROMPT)) for r, length in lengths.items()}
    return RandomRollouts(lengths, predicted, {r: rng.integers(0, vocabulary, n) for r, n in lengths.items()})


def random_model(shape: str, device: torch.device) -> "PreTrainedModel":
    """A frozen bf16 Qwen2 made on the device."""
    from transformers import Qwen2ForCausalLM

    config = qwen2(shape)
    torch.manual_seed(0)
    with _bfloat16(), device:
        return Qwen2ForCausalLM(config).requires_grad_(False)


@contextmanager
def _bfloat16() -> Iterator[None]:
    """New tensors are bf16 inside, also when making them fails."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def ours(
    options: argparse.Namespace, rollouts: RandomRollouts, device: torch.device, recomputed_layers: int
) -> Callable[[], float]:
    """One optimiser step of this project's loop; returns the loss."""
    lora = LoraConfig()
    compute = ComputeConfig(tokens_per_batch=options.tokens_per_batch, recomputed_layers=recomputed_layers)
    adapted = wear_adapter(random_model(options.shape, device), lora, options.shape)
    objective = RolloutLoss(adapted, device, recomputed_layers, autocast=None)
    processes = Processes(0, 1, device)
    parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    run = loop.Run(
        objective, parameters, rollouts, lora, compute, processes, Replicas(processes), None, None,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    optimiser = loop.adamw(parameters, lora)

    def step() -> float:
        loss = loop.accumulate(run, Step(1, 1, tuple(rollouts.lengths)))
        loop.clip(run)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss

    return step


def recipe(options: argparse.Namespace, rollouts: RandomRollouts, device: torch.device) -> Callable[[], float]:
    """One optimiser step of the paper's training script, on one GPU; returns the loss."""
    import peft

    from resources.components import PROJECTIONS

    base = random_model(options.shape, device)
    torch.manual_seed(LoraConfig().seed)
    config = peft.LoraConfig(r=1, lora_alpha=16, use_rslora=True, target_modules=list(PROJECTIONS))
    model = peft.get_peft_model(base, config)
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})  # pyright: ignore[reportCallIssue]
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-4, fused=True)
    _, predicted = rollouts.sizes(list(rollouts.lengths))

    def step() -> float:
        total = 0.0
        for r, ids in rollouts.ids.items():
            ids_1T = torch.from_numpy(ids).to(device)[None]
            labels_1T = ids_1T.clone()
            labels_1T[0, : len(ids) - rollouts.predicted[r]] = -100
            with torch.autocast(device.type, torch.bfloat16):
                loss = model(input_ids=ids_1T, labels=labels_1T, use_cache=False, num_items_in_batch=predicted).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return total

    return step


@dataclass(frozen=True)
class Measured:
    """What one way of training came to."""

    seconds: float
    """Of one step."""
    peak_gb: float
    """Most memory allocated at once; 0 on a CPU."""
    losses: list[float]
    """The warming step's first."""
    profile: str
    """Table of the kernels that took longest in one more step, if asked for."""


def measure(make: Callable[[], Callable[[], float]], steps: int, device: torch.device, *, profiled: bool) -> Measured:
    """Warm up, time `steps` steps and, if asked, profile another."""
    release(device)
    step = make()
    losses = [step()]
    seconds = wall_seconds(device, lambda: losses.extend(step() for _ in range(steps))) / steps
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    return Measured(seconds, peak, losses, _profile(step, device) if profiled else "")


def release(device: torch.device) -> None:
    """Give back the last way's memory: a fused model refers to itself, so that only the collector frees its 66 GB."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _profile(step: Callable[[], float], device: torch.device) -> str:
    with torch.profiler.profile() as profiler:
        wall_seconds(device, step)
    return profiler.key_averages().table(
        sort_by=f"self_{device.type}_time_total", row_limit=20, max_name_column_width=80
    )


def recomputed(work: Work, lengths: list[int], layers: int, all_layers: int, skipped: int) -> float:
    """FLOP of a second forward pass through `layers` layers: half of 4 per weight, a third of attention's 6.

    `skipped`: weights of a layer whose product is not made again.
    """
    squares = sum(length * length for length in lengths)
    whole = (work.per_token / 2 * sum(lengths) + work.per_squared_length / 3 * squares) * layers / all_layers
    return whole - 2 * skipped * layers * sum(lengths)


def expected_gb(shape: str, tokens: int, recomputed_layers: int) -> float:
    """Memory that a job would be taken to need for a pass of so many tokens."""
    compute = ComputeConfig(tokens_per_batch=tokens, recomputed_layers=recomputed_layers)
    sections = {"model": ModelConfig(), "lora": LoraConfig()}
    return memory.lora(Setup(sections, SHAPES[shape], compute, gpus=1)).bytes / 1e9


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure ours for each number of recomputed layers, then the recipe, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="32b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=10_000, help="mean tokens of a rollout")
    parser.add_argument("--rollouts", type=int, default=2, help="rollouts of a step (the paper: 16 over 8 GPUs)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each way")
    parser.add_argument("--tokens-per-batch", type=int, default=12_000)
    parser.add_argument("--recomputed-layers", help="numbers of layers, comma-separated; default: all")
    parser.add_argument("--profile", action="store_true", help="show the kernels of one more step")
    options = parser.parse_args(arguments)
    accept_older()
    device = torch.device(options.device)
    architecture = qwen2(options.shape)
    layers = architecture.num_hidden_layers
    rollouts = random_rollouts(options.rollouts, options.tokens, architecture.vocab_size)
    lengths, predicted = rollouts.sizes(list(rollouts.lengths))
    work, peak = training_work(architecture, trains_weights=False), peak_flops(device, torch.bfloat16)
    ways: list[tuple[str, int, Callable[[], Callable[[], float]]]] = [
        ("ours", again, partial(ours, options, rollouts, device, again))
        for again in (int(each) for each in (options.recomputed_layers or str(layers)).split(","))
    ]
    ways.append(("recipe", layers, partial(recipe, options, rollouts, device)))
    passes = batches_by_length(lengths, options.tokens_per_batch)
    longest_pass = max(sum(lengths[i] for i in one) for one in passes)
    print(f"{options.shape}, {sum(lengths)} tokens a step in {len(lengths)} rollouts, peak {peak / 1e12:.3g} TFLOP/s")
    print("| way | recomputed layers | tokens/s | MFU | HFU | peak memory (expected), GB | first and last loss |")
    print("|---|---|---|---|---|---|---|")
    for way, again, make in ways:
        expected = f"{expected_gb(options.shape, longest_pass, again):.1f}" if way == "ours" else "–"
        try:
            found = measure(make, options.steps, device, profiled=options.profile)
        except torch.OutOfMemoryError:
            print(f"| {way} | {again} | does not fit | | | ({expected}) | |", flush=True)
            continue
        needed = work.of(lengths, predicted)
        down = architecture.hidden_size * architecture.intermediate_size if way == "ours" else 0
        hardware = needed + recomputed(work, lengths, again, layers, skipped=down)
        per_second = 1 / found.seconds
        print(
            f"| {way} | {again} | {sum(lengths) * per_second:.0f} | {needed * per_second / peak:.1%} "
            f"| {hardware * per_second / peak:.1%} | {found.peak_gb:.1f} ({expected}) "
            f"| {found.losses[0]:.4f}, {found.losses[-1]:.4f} |",
            flush=True,
        )
        if found.profile:
            print(found.profile, flush=True)


if __name__ == "__main__":
    main()
