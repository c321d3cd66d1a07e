"""Ask an LLM what every unit stands for (paper B.1): its strongest contexts of its own polarity, nothing else.

The prompt says in our words what the authors' says (jnward/reasoning-lora-interp, `autointerp_utils.py`): one wording
for every kind of unit, contexts shuffled, explanation before class before reasoning, classes 0 and 1 only when every
context fits. It departs in three: tokens are quoted, data are escaped and declared to be data, and a token of the other
sign is no evidence (the authors print its absolute value).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from assets.interpretations.config import PROMPTS, STATISTICAL, InterpretationsConfig
from assets.interpretations.evidence import Evidence
from assets.interpretations.excerpts import Excerpts
from assets.interpretations.token_detection import unit_rng
from resources.compute import ComputeConfig
from resources.llm.answers import Answer
from resources.llm.ask import Asked, Bill, ask
from resources.llm.endpoint import Endpoint
from resources.llm.limits import Limits
from resources.llm.prompts import Prompt, load_prompt
from resources.llm.question import Question
from resources.progress import Progress

LEAST_CONTEXTS = 2
"""A unit with fewer contexts is not worth a request."""
MOST_WORDS = 10
"""Words of an explanation (paper B.1)."""


class Label(BaseModel, extra="forbid"):
    """The answer, its fields in the authors' order."""

    explanation: str
    classification: Literal[0, 1, 2]
    classification_reasoning: str


def endpoint_of(knobs: InterpretationsConfig) -> Endpoint:
    """The endpoint that the section names."""
    assert knobs.provider != STATISTICAL  # the caller branches on it
    return Endpoint(
        knobs.provider, knobs.model, knobs.base_url, knobs.effort, knobs.max_output_tokens, knobs.model_context
    )


def label_units(
    knobs: InterpretationsConfig,
    compute: ComputeConfig,
    dataset: Path,
    evidence: Iterable[Evidence],
    units: int,
    progress: Progress,
) -> tuple[dict[str, dict[str, Any]], Bill]:
    """Ask about every unit, `knobs.samples` times each: unit -> the columns of its row that the LLM decides.

    Raises:
        BadInput: without a key, at a cap, when the endpoint refuses or is down, or none of its answers can be used.
    """
    endpoint = endpoint_of(knobs)
    prompt = load_prompt(PROMPTS, knobs.prompt)
    excerpts = Excerpts(dataset)
    too_few: list[str] = []

    def questions() -> Iterator[Question]:
        for each in evidence:
            if len(each.shown(knobs.contexts_shown)) < LEAST_CONTEXTS:
                too_few.append(each.unit)
                continue
            for sample in range(knobs.samples):
                yield unit_question(each, sample, prompt, knobs, excerpts)

    asked = ask(
        questions(), lambda: (units - len(too_few)) * knobs.samples, endpoint, Limits.of(compute), progress, "label"
    )
    asked.check_usable()
    rows = {
        unit: _row(endpoint, unit, asked, knobs.samples) for unit in dict.fromkeys(unit for unit, _ in asked.answers)
    }
    few = _columns(endpoint, None, "insufficient", f"fewer than {LEAST_CONTEXTS} contexts to show", None)
    return rows | dict.fromkeys(too_few, few), asked.bill


def unit_question(
    evidence: Evidence,
    sample: int,
    prompt: Prompt,
    knobs: InterpretationsConfig,
    excerpts: Excerpts,
    fitting: int | None = None,
) -> Question:
    """The question about a unit; each sample sees the contexts in an order of its own.

    `fitting`: how many contexts the model can read, where it cannot read all that are wanted.
    """
    wanted = evidence.shown(knobs.contexts_shown).tolist()
    windows = [evidence.windows[place] for place in wanted[:fitting]]
    most = max(window.value for window in windows)
    order = unit_rng(evidence.unit, knobs.seed + sample).permutation(len(windows))
    shown = [
        excerpts.context(number, windows[place], most, knobs.tokens_around, knobs.shown_activation, knobs.tokens_listed)
        for number, place in enumerate(order.tolist(), 1)
    ]
    system, user = prompt.fill({"count": str(len(windows)), "examples": "\n".join(shown)})

    def shorter() -> Question | None:
        fewer = len(windows) // 2
        return None if fewer < LEAST_CONTEXTS else unit_question(evidence, sample, prompt, knobs, excerpts, fewer)

    note = "" if fitting is None else f"shown {fitting} of {len(wanted)} contexts: the prompt was too long"
    return Question(
        evidence.unit, system, user, Label, prompt.version, sample, check=_empty, shorter=shorter, note=note
    )


def _empty(label: Label) -> str:
    return "" if label.explanation.strip() else "the explanation is empty"


def _row(endpoint: Endpoint, unit: str, asked: Asked, samples: int) -> dict[str, Any]:
    answers = [asked.answers[unit, sample] for sample in range(samples)]
    usable = [answer for answer in answers if answer.value is not None]
    if not usable:
        return _columns(endpoint, None, "failed", answers[0].failure, None)
    labels = [_label(answer).classification for answer in usable]
    others = labels[1:]
    stability = sum(label == labels[0] for label in others) / len(others) if others else None
    return _columns(endpoint, _label(usable[0]), "ok", _detail(usable[0]), stability)


def _label(answer: Answer) -> Label:
    assert isinstance(answer.value, Label)  # the question asked for one
    return answer.value


def _detail(answer: Answer) -> str:
    words = len(_label(answer).explanation.split())
    long = f"the explanation has {words} words" if words > MOST_WORDS else ""
    return "; ".join(each for each in (answer.note, long) if each)


def _columns(
    endpoint: Endpoint, label: Label | None, status: str, detail: str, stability: float | None
) -> dict[str, Any]:
    return {
        "explainer": endpoint.name,
        "explanation": label.explanation if label else "",
        "label": label.classification if label else None,
        "reasoning": label.classification_reasoning if label else "",
        "status": status,
        "detail": detail,
        "stability": stability,
    }
