"""Hours of the benchmarks: for `lorascope plan --explain`."""

from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.published import QUESTIONS
from resources.work import Setting, WorkEstimate, generation

COUNTS = {**QUESTIONS, "aime25_nofigures": 30}
"""Questions of the published benchmarks; another one counts as 100."""
ANSWER_TOKENS = 8000
"""Mean answer of a reasoning model (assumed; s1's training traces have about 10,000)."""
VLLM_ROWS = 256
"""Sequences that vLLM decodes side by side by default."""


def benchmark_hours(on: Setting) -> WorkEstimate:
    """Every arm answers every question."""
    knobs = on.knobs(BenchmarksConfig)
    counts = [COUNTS.get(task, 100) for task in knobs.tasks]
    questions = sum(min(count, knobs.limit or count) for count in counts)
    answer = min(ANSWER_TOKENS, knobs.max_gen_toks or knobs.context)
    tokens = (len(knobs.arms) + len(knobs.adapters)) * questions * knobs.samples * answer
    rows = min(questions, VLLM_ROWS) if knobs.backend == "vllm" else knobs.batch_size
    found = generation(on.sizes, on.model.dtype, tokens, rows, answer / 2, on.gpus)
    arms = f"{len(knobs.arms)} arms x {questions} questions x {knobs.samples} x {answer} tokens (assumed)"
    return WorkEstimate(found.hours, f"{arms}: {found.how}")
