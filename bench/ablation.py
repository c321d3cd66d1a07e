"""Units x tokens per second of the ablation, against an equal naive loop and against the authors' way.

OMP_NUM_THREADS=1 python -m bench.ablation [--turns 5] [--hidden 256] [--vocabulary 8] [--cores 2]

A random float32 Qwen2 with Qwen2.5-32B's layers in small (MLP 5.4 x hidden), 16 of them, one 256-token rollout, and
every second of its 112 components and 16 layers. --vocabulary 8 words per unit of width make the head 2.5 % of the
weights as in the 32B; 30 make the softmaxes as wide beside the hidden size as there, and the head 9 %. The three ways
take turns in one run; seconds are CPU seconds of one thread, so that other work on the machine counts least. All run
with the launcher's settings of glibc (bench/kept_memory.py), and must give the same KL. --cores: wall seconds on so
many cores instead (bench/cores.py), one rollout for each: ours as the launcher runs it, the authors' way with one of
torch's threads and with one for each core.

ours      stream of the full run, passes from the first change, batches of several units, fused KL
naive     the same code and batches, every pass from the embedding
authors   PEFT's model with A and B set to zero, batch 1, the full run's float32 softmax kept, then for each unit a
          full forward, softmax, log, kl_div over whole logits, and for layers the cross-entropy; their checks left out
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from assets.ablation.adapted import AdaptedModel
from assets.ablation.catalogue import Part, catalogue, removal
from assets.ablation.edits import Edit
from assets.ablation.measure import measure
from assets.ablation.passages import Passage, cut
from bench.cores import compare
from bench.kept_memory import restart_with_kept_memory
from resources.adapters import Adapter
from resources.components import PROJECTIONS
from resources.onednn import FLOP_FORMULA, use_onednn

LAYERS, TOKENS = 16, 256
STRIDE = 2
"""Units are every second component and layer, 64 in all; a share of the 32B's work has 130 for each full run."""
ROWS = 8
"""Units per batch of ours and naive: 2048 tokens, whose widest activation is 11 MB."""


class FromTheEmbedding(Edit):
    """An edit whose pass shares nothing with the full run."""

    entry = 0  # pyright: ignore[reportAssignmentType]


@dataclass(frozen=True)
class Workload:
    """One model worn two ways, one rollout, and the units."""

    adapted: AdaptedModel
    peft: Any
    """A `PeftModel`; torch's stubs take its call for a tensor."""
    passage: Passage
    parts: Sequence[Part]
    tokens_per_batch: int

    def ours(self) -> list[float]:
        """KL sums by this room."""
        return self._measured([removal(part.unit, part.components, None) for part in self.parts])

    def naive(self) -> list[float]:
        """The same with every pass from the embedding."""
        found = [removal(part.unit, part.components, None) for part in self.parts]
        return self._measured([FromTheEmbedding(edit.name, edit.changes) for edit in found if edit is not None])

    @torch.inference_mode()
    def authors(self) -> list[float]:
        """The authors' script: the full run once, then for each unit zero its weights, run, compare, put them back."""
        ids_1T = torch.from_numpy(self.passage.ids_T)[None].to(self.adapted.device)
        full_TV = F.softmax(self.peft(ids_1T).logits[0].float(), dim=-1)
        return [self._authors_unit(ids_1T, full_TV, part) for part in self.parts]

    def _authors_unit(self, ids_1T: torch.Tensor, full_TV: torch.Tensor, part: Part) -> float:
        modules = [self.peft.get_submodule(f"base_model.model.{c.module}") for c in part.components]
        weights = [m.get_submodule(f"lora_{side}.default").weight for m in modules for side in "AB"]
        saved = [weight.clone() for weight in weights]
        for weight in weights:
            weight.zero_()
        logits_TV = self.peft(ids_1T).logits[0].float()
        log_probs_TV = F.softmax(logits_TV, dim=-1).log()
        kl = float(F.kl_div(log_probs_TV, full_TV, reduction="none").sum(-1).sum())
        if part.kind == "layer":
            F.cross_entropy(logits_TV[:-1], ids_1T[0, 1:], reduction="none")
        for weight, before in zip(weights, saved, strict=True):
            weight.copy_(before)
        return kl

    def _measured(self, edits: Sequence[Edit | None]) -> list[float]:
        found = [edit for edit in edits if edit is not None]
        return [sums.kl for sums in measure(self.adapted, self.passage, found, self.tokens_per_batch)]


def wear(config: Qwen2Config, device: str, dtype: torch.dtype, folder: Path) -> tuple[AdaptedModel, PeftModel]:
    """A random model with a random rank-1 adapter, as ours and as PEFT's (sharing the base weights)."""
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        base = Qwen2ForCausalLM(config).eval()
        torch.set_default_dtype(before)
    worn = copy.deepcopy(base, {id(weight): weight for weight in base.parameters()})
    lora = LoraConfig(r=1, lora_alpha=16, use_rslora=True, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    peft = get_peft_model(worn, lora).eval()
    for name, weight in peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    peft.save_pretrained(str(folder))
    use_onednn(base)  # as load_base does
    return AdaptedModel(base, Adapter.open(folder)), peft.requires_grad_(False)


def workload(config: Qwen2Config, *, tokens: int, rows: int, stride: int, device: str, dtype: torch.dtype) -> Workload:
    """Every `stride`-th component and layer of a random model, on one rollout of random tokens."""
    with tempfile.TemporaryDirectory() as folder:
        adapted, peft = wear(config, device, dtype, Path(folder))
    ids = np.random.default_rng(0).integers(0, config.vocab_size, tokens)
    passage = cut(0, ids, np.ones(tokens, bool), tokens, "all")
    every = catalogue(adapted.adapter.components, None, 8)
    singles, layers = ([part for part in every if part.kind == kind] for kind in ("component", "layer"))
    spread = [*singles[stride // 2 :: stride], *layers[stride // 2 :: stride]]
    return Workload(adapted, peft, passage, spread, rows * tokens)


def flops(run: Callable[[], object]) -> int:
    """Matrix-product FLOPs of a run, counted by torch."""
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULA) as counter:
        run()
    return counter.get_total_flops()


def built(config: Qwen2Config) -> Workload:
    """The bench's own."""
    return workload(config, tokens=TOKENS, rows=ROWS, stride=STRIDE, device="cpu", dtype=torch.float32)


def our_share(config: Qwen2Config, _index: int, _count: int) -> Callable[[], object]:
    """One rollout, all units."""
    return built(config).ours


def the_authors(config: Qwen2Config, rollouts: int, _index: int, _count: int) -> Callable[[], object]:
    """Their way through so many rollouts."""
    work = built(config)
    return lambda: [work.authors() for _ in range(rollouts)]


def main() -> None:
    """Take turns, compare, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=8)
    parser.add_argument("--cores", type=int, help="compare wall seconds on so many cores")
    arguments = parser.parse_args()
    hidden = arguments.hidden
    config = Qwen2Config(
        vocab_size=arguments.vocabulary * hidden,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 2,
        num_hidden_layers=LAYERS,
        num_attention_heads=hidden // 32,
        num_key_value_heads=max(1, hidden // 128),
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    if arguments.cores:
        authors = partial(the_authors, config, arguments.cores)
        compare(partial(our_share, config), authors, arguments.cores, arguments.turns)
        return
    work = built(config)
    ways = {"ours": work.ours, "naive": work.naive, "authors": work.authors}
    counted = {name: flops(way) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, list[float]] = {}
    for _ in range(arguments.turns):
        for name, way in ways.items():
            began = time.process_time()
            results[name] = way()
            seconds[name].append(time.process_time() - began)
    np.testing.assert_allclose(results["ours"], results["naive"], rtol=1e-4)
    np.testing.assert_allclose(results["ours"], results["authors"], rtol=1e-2, atol=1e-3)
    best = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(f"{len(work.parts)} units x {TOKENS} tokens, {LAYERS} layers of {hidden}, {config.vocab_size} words")
    for name in ways:
        rate = len(work.parts) * TOKENS / best[name]
        ratios = [theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)]
        print(
            f"{name:8} {best[name]:7.2f} CPU s  {rate:9.0f} unit-tokens/s  "
            f"{statistics.median(ratios):.2f} x ours ({min(ratios):.2f}-{max(ratios):.2f})  "
            f"FLOPs {counted['ours'] / counted[name]:.3f}"
        )


if __name__ == "__main__":
    restart_with_kept_memory()
    main()
