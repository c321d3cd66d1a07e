"""Questions per second of the benchmarks room's `hf` path against plain `generate`, and against vLLM's CPU build.

OMP_NUM_THREADS=1 python -m bench.generate [--questions 200] [--vllm-python VENV/bin/python]

Every question is answered by a Qwen2 of the mini world's size (4 layers, hidden 128, random weights), greedily, to the
length of a real trace of the mini world, so that a batch ends row by row as in the benchmarks. All paths agree in every
token.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from assets.benchmarks.decode import Row, decode
from resources.onednn import use_onednn
from resources.sources import PROJECT

VOCABULARY, PAD = 400, 0
BATCH = 100
"""Rows whose keys and values stay in a CPU's cache: with 200 a tenth of the speed is lost."""
VLLM = """
import json, sys, time
from vllm import LLM, SamplingParams
from vllm.inputs import TokensPrompt
if __name__ == "__main__":
    prompts, lengths = json.load(open(sys.argv[2]))
    llm = LLM(sys.argv[1], skip_tokenizer_init=True, enforce_eager=True, dtype="float32", max_model_len=1024)
    asked = [TokensPrompt(prompt_token_ids=ids) for ids in prompts]
    wanted = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, detokenize=False) for n in lengths]
    llm.generate(asked[:8], wanted[:8], use_tqdm=False)
    began = time.perf_counter()
    out = llm.generate(asked, wanted, use_tqdm=False)
    seconds = time.perf_counter() - began
    json.dump([seconds, [list(one.outputs[0].token_ids) for one in out]], open(sys.argv[3], "w"))
"""


def build_model(folder: Path) -> PreTrainedModel:
    """A random model of the mini world's shape, saved for vLLM."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=PAD,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def real_lengths(questions: int) -> tuple[list[int], list[int]]:
    """Words of the mini world's problems and of its traces: lengths of prompts and answers."""
    rows = pq.read_table(PROJECT / "resources/mini_world/data/s1k_mini/train.parquet").slice(0, questions).to_pylist()
    pieces = [[len(text) // 2 for text in (row["question"], row["deepseek_thinking_trajectory"])] for row in rows]
    return [prompt + 20 for prompt, _ in pieces], [trace + 10 for _, trace in pieces]


def ours(model: PreTrainedModel, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """The `hf` back end's loop, longest prompts first."""
    use_onednn(model)  # as load_base does
    rows = [Row(ids, n, frozenset(), 0.0, 0) for ids, n in zip(prompts, lengths, strict=True)]
    order = sorted(rows, key=lambda row: -len(row.prompt))
    for start in range(0, len(order), BATCH):
        decode(model, order[start : start + BATCH], PAD)
    return [row.tokens for row in rows]


def plain(model: PreTrainedModel, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """One question after another through `generate`."""
    return [_generate(model, [ids], n)[0] for ids, n in zip(prompts, lengths, strict=True)]


def batched(model: PreTrainedModel, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """`generate` with batches: everyone waits for the longest answer."""
    found: list[list[int]] = []
    for start in range(0, len(prompts), BATCH):
        wanted = lengths[start : start + BATCH]
        out = _generate(model, prompts[start : start + BATCH], max(wanted))
        found += [tokens[:n] for tokens, n in zip(out, wanted, strict=True)]
    return found


def _generate(model: PreTrainedModel, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        out = model.generate(  # pyright: ignore[reportCallIssue]
            ids, attention_mask=mask, do_sample=False, max_new_tokens=num_tokens
        )
    return out[:, longest:].tolist()


def through_vllm(
    python: str, folder: Path, prompts: list[list[int]], lengths: list[int]
) -> tuple[float, list[list[int]]]:
    """Seconds of generation alone (start-up and warm-up left out) and the tokens, from vLLM in its own environment."""
    script, asked, answered = folder / "vllm_run.py", folder / "asked.json", folder / "answered.json"
    script.write_text(VLLM)
    asked.write_text(json.dumps([prompts, lengths]))
    subprocess.run([python, script, folder, asked, answered], check=True)
    seconds, tokens = json.loads(answered.read_text())
    return seconds, tokens


def timed(
    run: Callable[[PreTrainedModel, list[list[int]], list[int]], list[list[int]]],
    model: PreTrainedModel,
    prompts: list[list[int]],
    lengths: list[int],
) -> tuple[float, list[list[int]]]:
    """Seconds and tokens."""
    began = time.perf_counter()
    tokens = run(model, prompts, lengths)
    return time.perf_counter() - began, tokens


def report(name: str, seconds: float, questions: int, base: float, same: int) -> None:
    """One line: rate, ratio to the plain loop, and how many answers are token for token the plain loop's."""
    rate = questions / seconds
    print(f"{name:34} {seconds:7.1f} s  {rate:7.1f} questions/s  {rate / base:5.1f} x  same answers {same}/{questions}")


def main() -> None:
    """Run all paths on the same questions and print ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--vllm-python")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prompt_lengths, lengths = real_lengths(options.questions)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(1, 390, (n,), generator=generator).tolist() for n in prompt_lengths]
    print(f"{options.questions} questions, {sum(lengths)} tokens, answers of {min(lengths)} to {max(lengths)}")
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(Path(folder))
        decode(model, [Row(prompts[0], 4, frozenset(), 0.0, 0)], PAD)
        seconds, expected = timed(plain, model, prompts, lengths)
        base = options.questions / seconds
        report("generate, batch 1 (plain loop)", seconds, options.questions, base, options.questions)
        for name, run in ((f"generate, batch {BATCH}", batched), (f"assets.benchmarks.decode, batch {BATCH}", ours)):
            seconds, tokens = timed(run, model, prompts, lengths)
            same = sum(a == b for a, b in zip(tokens, expected, strict=True))
            report(name, seconds, options.questions, base, same)
        if options.vllm_python:
            seconds, tokens = through_vllm(options.vllm_python, Path(folder), prompts, lengths)
            same = sum(a == b for a, b in zip(tokens, expected, strict=True))
            report("vLLM CPU build", seconds, options.questions, base, same)


if __name__ == "__main__":
    main()
