"""Tokens per second of capture, beside the bare forward pass of the same batches and the authors' way, in one run.

OMP_NUM_THREADS=1 python -m bench.capture
    [--turns 5] [--layers 64 --hidden 64 --shortest 20 --longest 200 | --mini] [--cores 2 --shard-rows 2048]

--mini: the mini world's own model and rollouts, and a random adapter; what a user runs on a CPU. Otherwise a random
float32 Qwen2 in Qwen2.5-32B's proportions (MLP 5.4 x hidden, head 2 to 3 % of the weights, attention heads of 32). 64
layers have the paper's 448 components and, narrow as they are, mostly overhead per operation, as a GPU has with short
rollouts; few wide layers (--layers 16 --hidden 256 --shortest 100 --longest 1000) are mostly arithmetic, as a GPU has
with long ones.
Seconds are CPU seconds of the thread that runs the model, since the machine is shared; what the writer's thread takes,
and what the forward pass waits for it (wall time), is printed beside. Freed memory stays in the process, as in the
launcher's workers (bench/kept_memory.py).

--cores: wall seconds on so many cores instead (bench/cores.py): ours as the launcher runs it, the authors' way with one
of torch's threads and with one for each core.

peft      PEFT's forward pass of the backbone over the same packed batches, no hooks, torch's own products
bare      the same with the adapter in the weights and the products by oneDNN, as ours has it
ours      that with hooks, scalars kept until the shard is full, shards written behind
authors   batch 1, PEFT's whole model with its head, x @ A again in float32 and one copy to the CPU for each component,
          gzip-1 of a float16 [tokens, layers, 7] per rollout (their HDF5 without the HDF5; their decoding of every
          token to text left out)

Then the bytes of a token on disk, for 448 columns of noise: any encoding must hold 10 M tokens in 9 GB.
"""

import argparse
import copy
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from assets.activations.capture import forward_shard, to_rows
from assets.activations.config import ActivationsConfig
from assets.activations.plan import Reading, ShardPlan, filled, plan_shards
from assets.activations.probe import Probe, adapter_probe
from assets.activations.shelf import Shelf
from assets.dataset.artifact import S1kDataset
from assets.dataset.config import DatasetConfig
from assets.dataset.prepare import prepare
from bench.cores import compare
from bench.kept_memory import restart_with_kept_memory
from resources.attention import use_varlen_attention
from resources.components import PROJECTIONS, Component, components
from resources.models import ModelConfig
from resources.onednn import use_onednn
from resources.packing import batches_by_length, forward_kwargs, pack
from resources.progress import Progress
from resources.shards import Encoding, StateBatch, write_shard

GZIP = 1
"""The authors' script."""
MINI = Path("resources/mini_world")
TOKENS_PER_BATCH = 2048


def build(config: Qwen2Config, device: str, dtype: torch.dtype) -> PeftModel:
    """Random weights made on the device, with a random rank-1 adapter on all seven projections."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model: Any = Qwen2ForCausalLM(config)
    model.to(dtype).to_empty(device=device)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    rotary = model.model.rotary_emb
    half = rotary.inv_freq.numel()  # to_empty left the frequencies unset
    rotary.inv_freq = 1e6 ** (-torch.arange(half, device=device) / half)
    return wear(model)


def wear(model: Any) -> PeftModel:
    """A random rank-1 adapter on all seven projections."""
    lora = LoraConfig(r=1, lora_alpha=16, use_rslora=True, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return adapted.eval().requires_grad_(False)


def plans(tokens: int, shortest: int, longest: int, vocabulary: int, shard_rows: int) -> list[ShardPlan]:
    """Rollouts of random lengths and tokens, in shards."""
    rng = np.random.default_rng(0)
    readings: list[Reading] = []
    while tokens > 0:
        length = int(rng.integers(shortest, longest + 1))
        ids = rng.integers(0, vocabulary, length).astype(np.int32)
        readings.append(Reading(len(readings), ids, np.arange(length)))
        tokens -= length
    return filled(readings, shard_rows)


def mini_world(shard_rows: int) -> tuple[PeftModel, list[ShardPlan]]:
    """Its model with a random adapter, and all its rollouts."""
    model = ModelConfig(name=str(MINI / "model"), dtype="float32")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        config = DatasetConfig(source=str(MINI / "data/s1k_mini"))
        prepare(model=model, dataset=config, out=Path(name), progress=Progress(lambda _: None))
        planned = plan_shards(S1kDataset.open(Path(name)), "all", shard_rows, 1024)
    return wear(Qwen2ForCausalLM.from_pretrained(model.name)), list(planned.shards)


def bare(backbone: Any, shards: list[ShardPlan], device: str, tokens_per_batch: int) -> None:
    """The same batches through the same modules, nothing kept."""
    for shard in shards:
        for batch in batches_by_length([len(reading.token_ids) for reading in shard.readings], tokens_per_batch):
            backbone(**forward_kwargs(pack([shard.readings[i].token_ids for i in batch]), device))


def ours(probe: Probe, shards: list[ShardPlan], device: str, tokens_per_batch: int, folder: Path) -> Shelf:
    """Capture into files."""
    shelf = Shelf(folder, probe.columns, "bench", ActivationsConfig())
    with probe.attached(), shelf.writing() as put:
        for shard in shards:
            states_RC = forward_shard(probe, shard, device, tokens_per_batch)
            put(shard.index, lambda shard=shard, states_RC=states_RC: to_rows(shard, states_RC, probe.columns))
    return shelf


def authors(model: PeftModel, shards: list[ShardPlan], device: str) -> int:
    """Bytes written the authors' way, from its description."""
    base: Any = model.get_base_model()
    modules = dict(base.named_modules())
    base.set_attn_implementation("sdpa")
    columns = components(base.config.num_hidden_layers)
    caught: dict[Component, np.ndarray] = {}

    def read(component: Component, a_I: torch.Tensor, _module: object, inputs: tuple[torch.Tensor]) -> None:
        caught[component] = (inputs[0][0].float() @ a_I).cpu().numpy()

    handles = [
        modules[c.module].register_forward_pre_hook(
            partial(read, c, modules[f"{c.module}.lora_A.default"].weight[0].float())
        )
        for c in columns
    ]
    size = 0
    for reading in (reading for shard in shards for reading in shard.readings):
        model(input_ids=torch.from_numpy(reading.token_ids.astype(np.int64))[None].to(device))
        states_TLP = np.zeros((len(reading.token_ids), len(columns) // len(PROJECTIONS), len(PROJECTIONS)), np.float16)
        for c in columns:
            states_TLP[:, c.layer, PROJECTIONS.index(c.projection)] = caught[c].astype(np.float16)
        size += len(zlib.compress(states_TLP.tobytes(), GZIP))
    for handle in handles:
        handle.remove()
    use_varlen_attention(model)
    return size


def disk(tokens: int = 65_536) -> None:
    """Bytes a token of 448 float16 columns, each heavy-tailed (Student's t) and of another scale."""
    rng = np.random.default_rng(0)
    columns = tuple(component.id for component in components(64))
    scale_C = np.exp(rng.normal(0, 1, len(columns)))
    states = (rng.standard_t(5, (tokens, len(columns))) * scale_C).astype(np.float16)
    row_R = np.arange(tokens)
    batch = StateBatch(row_R // 8192, row_R % 8192, rng.integers(0, 152_064, tokens), states)
    encodings: tuple[Encoding, ...] = ("plain", "byte_stream_split")
    sizes = {"raw": 2 * len(columns), f"gzip-{GZIP}": len(zlib.compress(states.tobytes(), GZIP)) / tokens}
    with tempfile.TemporaryDirectory() as name:
        for encoding in encodings:
            path = Path(name, encoding)
            write_shard(path, batch, columns, "bench", 8192, encoding)
            sizes[f"shards, zstd, {encoding}"] = path.stat().st_size / tokens
    for way, size in sizes.items():
        print(f"{way:32} {size:5.0f} bytes a token, 10 M tokens in {size / 100:.2f} GB")


def random_world(options: argparse.Namespace) -> tuple[PeftModel, list[ShardPlan]]:
    """A random model of the given shape, and random rollouts."""
    config = Qwen2Config(
        vocab_size=max(500, options.hidden * options.layers // 2), hidden_size=options.hidden,
        intermediate_size=int(5.4 * options.hidden), num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 32, num_key_value_heads=max(1, options.hidden // 128),
        max_position_embeddings=2048,
    )  # fmt: skip
    shards = plans(options.tokens, options.shortest, options.longest, config.vocab_size, options.shard_rows)
    return build(config, "cpu", torch.float32), shards


def world(options: argparse.Namespace) -> tuple[PeftModel, list[ShardPlan]]:
    """What was asked for."""
    return mini_world(16_384) if options.mini else random_world(options)


def our_probe(model: PeftModel) -> Probe:
    """The model as a capture has it: `load_base` lets it compute by oneDNN."""
    use_onednn(model)
    use_varlen_attention(model)
    return adapter_probe(model)


def our_share(options: argparse.Namespace, index: int, count: int) -> Callable[[], object]:
    """Capture of every `count`-th shard."""
    model, shards = world(options)
    probe = our_probe(model)

    @torch.inference_mode()
    def run() -> None:
        with tempfile.TemporaryDirectory() as name:
            ours(probe, shards[index::count], "cpu", TOKENS_PER_BATCH, Path(name))

    return run


def the_authors(options: argparse.Namespace, _index: int, _count: int) -> Callable[[], object]:
    """Their way through all shards."""
    return torch.inference_mode()(partial(authors, *world(options), "cpu"))


def main() -> None:
    """Take turns and print ratios of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--layers", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--shortest", type=int, default=20)
    parser.add_argument("--longest", type=int, default=200)
    parser.add_argument("--mini", action="store_true")
    parser.add_argument("--shard-rows", type=int, default=4096)
    parser.add_argument("--cores", type=int, help="compare wall seconds on so many cores")
    options = parser.parse_args()
    if options.cores:
        compare(partial(our_share, options), partial(the_authors, options), options.cores, options.turns)
        return
    torch.set_num_threads(1)
    model, shards = world(options)
    tokens = sum(shard.num_rows for shard in shards)
    probe = our_probe(copy.deepcopy(model))  # it takes the adapter into the weights
    use_varlen_attention(model)
    peft: Any = model.get_base_model()
    took: dict[str, list[float]] = {"peft": [], "bare": [], "ours": [], "authors": []}
    waits, writers = [], []

    def one_way(way: str, folder: Path) -> None:
        began, process, thread = time.perf_counter(), time.process_time(), time.thread_time()
        if way == "peft":
            bare(peft.model, shards, "cpu", TOKENS_PER_BATCH)
        elif way == "bare":
            bare(probe.backbone, shards, "cpu", TOKENS_PER_BATCH)
        elif way == "authors":
            authors(model, shards, "cpu")
        else:
            shelf = ours(probe, shards, "cpu", TOKENS_PER_BATCH, folder)
            waits.append(shelf.waited_s / (time.perf_counter() - began))
            writers.append((time.process_time() - process) / (time.thread_time() - thread) - 1)
        took[way].append(time.thread_time() - thread)

    with torch.inference_mode(), tempfile.TemporaryDirectory() as name:
        bare(probe.backbone, shards, "cpu", TOKENS_PER_BATCH)
        for turn in range(options.turns):
            for place in range(len(took)):  # in another order each turn
                one_way(list(took)[(turn + place) % 4 if turn % 2 else (turn - place) % 4], Path(name))
        size = sum(path.stat().st_size for path in Path(name).glob("*.parquet"))
        gzip = authors(model, shards, "cpu")
    print(f"{tokens} tokens, {len(probe.columns)} components, {len(shards)} shards, medians of {options.turns} turns")
    for way, values in took.items():
        ratios = [value / mine for value, mine in zip(values, took["ours"], strict=True)]
        beside = f"{statistics.median(ratios):.2f} x ours of the same turn ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{way:8} {tokens / statistics.median(values):8.0f} tokens/s of CPU; takes {beside}")
    print(f"the writer's thread takes {statistics.median(writers):.3f} of ours, waited for {max(waits):.3f} at most")
    print(f"bytes a token: {size / tokens:.0f} in shards, {gzip / tokens:.0f} gzip, {2 * len(probe.columns)} raw")
    disk()


if __name__ == "__main__":
    restart_with_kept_memory()
    main()
