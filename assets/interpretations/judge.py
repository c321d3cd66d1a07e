"""Score an LLM's explanations by another reading: detection, fuzzing and intruder questions over held-out excerpts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from assets.interpretations.config import PROMPTS, InterpretationsConfig, ScoresConfig
from assets.interpretations.corpus import Corpus
from assets.interpretations.evidence import Evidence
from assets.interpretations.examples import Example, draw_examples, draw_intruder, draw_marked
from assets.interpretations.excerpts import Excerpts
from assets.interpretations.intervals import balanced
from assets.interpretations.label import endpoint_of
from assets.interpretations.token_detection import precision, unit_rng, unscored
from resources.compute import ComputeConfig
from resources.intervals import wilson
from resources.llm.ask import Asked, Bill, ask
from resources.llm.endpoint import Endpoint
from resources.llm.limits import Limits
from resources.llm.prompts import Prompt, escaped, load_prompt
from resources.llm.question import Question
from resources.progress import Progress


class Activity(BaseModel, extra="forbid"):
    """The answer of detection and fuzzing."""

    active: list[bool]


class Intruder(BaseModel, extra="forbid"):
    """The answer of an intruder question."""

    intruder: int


@dataclass(frozen=True)
class Judgement:
    """One excerpt, in however many draws it was shown."""

    fires: bool
    typical: bool
    """Firing, and drawn whatever its strength."""
    random: bool
    """Not firing, and drawn whatever its token."""
    hard: bool
    """Not firing, and drawn for its token; one draw may find at random what another one takes for its token."""
    active: float
    """Share of its judgements that call it active."""


@dataclass(frozen=True)
class Sheet:
    """One request's examples: which unit and method they belong to, and what is true of them."""

    unit: str
    kind: str
    method: str
    draw: int
    examples: tuple[Example, ...]


def judge_endpoint(knobs: InterpretationsConfig, scores: ScoresConfig) -> Endpoint:
    """The explainer's endpoint, with the judging model where one is named."""
    return replace(endpoint_of(knobs), model=scores.judge_model or knobs.model)


def most_requests(method: str, scores: ScoresConfig) -> int:
    """Requests about one unit; fewer where it has few held-out contexts."""
    shown = scores.examples_per_request
    return scores.draws * (_intruders(scores) if method == "intruder" else -(-scores.examples // shown))


def _intruders(scores: ScoresConfig) -> int:
    """Intruder questions of one draw."""
    return scores.examples // 10 or 1


def judge_units(
    scores: ScoresConfig,
    knobs: InterpretationsConfig,
    compute: ComputeConfig,
    dataset: Path,
    corpus: Corpus,
    evidence: Iterable[Evidence],
    explained: dict[str, dict[str, Any]],
    progress: Progress,
) -> tuple[list[dict[str, Any]], Bill]:
    """Rows of the scores table: held-out examples of every unit explained (at most `units_per_kind`, evenly spread).

    Raises:
        BadInput: as `label_units` does.
    """
    endpoint = judge_endpoint(knobs, scores)
    prompts = {method: load_prompt(PROMPTS, method) for method in scores.methods}
    excerpts, chosen = Excerpts(dataset), _chosen(explained, scores.units_per_kind)
    sheets: dict[tuple[str, int], Sheet] = {}
    lacking: list[tuple[str, str, str]] = []
    most = {method: most_requests(method, scores) for method in scores.methods}
    total = len(chosen) * sum(most.values())

    def questions() -> Iterator[Question]:
        nonlocal total
        for each in evidence:
            for method in scores.methods if each.unit in chosen else ():
                found = list(_sheets(each, method, scores, corpus, knobs.seed))
                total -= most[method] - len(found)
                if not found:
                    lacking.append((each.unit, each.kind, method))
                for number, sheet in enumerate(found):
                    name = f"{each.unit} {method} {number}"
                    sheets[name, sheet.draw] = sheet
                    yield _question(name, sheet, explained[each.unit]["explanation"], prompts[method], scores, excerpts)

    asked = ask(questions(), lambda: total, endpoint, Limits.of(compute), progress, "judge")
    asked.check_usable()
    rows = _rows(sheets, asked, explained, endpoint, scores)
    rows += [
        unscored(unit, kind, "too few held-out contexts, firing or quiet")
        | {"explainer": explained[unit]["explainer"], "method": method, "judge": endpoint.name, "target": "window"}
        for unit, kind, method in lacking
    ]
    return rows, asked.bill


def _chosen(explained: dict[str, dict[str, Any]], per_kind: int | None) -> set[str]:
    chosen: set[str] = set()
    for kind in sorted({row["kind"] for row in explained.values()}):
        units = [unit for unit, row in explained.items() if row["kind"] == kind and row["status"] == "ok"]
        if per_kind is not None and len(units) > per_kind:
            units = [units[place] for place in np.linspace(0, len(units) - 1, per_kind).astype(int)]
        chosen.update(units)
    return chosen


def _sheets(evidence: Evidence, method: str, scores: ScoresConfig, corpus: Corpus, seed: int) -> Iterator[Sheet]:
    rng = unit_rng(f"{evidence.unit} {method}", seed)
    for draw in range(scores.draws):
        if method == "intruder":
            drawn = [draw_intruder(evidence, scores, corpus, rng) for _ in range(_intruders(scores))]
            groups = [group for group in drawn if group]
        else:
            make = draw_examples if method == "detection" else draw_marked
            examples = make(evidence, scores, corpus, rng)
            size = scores.examples_per_request
            groups = [examples[start : start + size] for start in range(0, len(examples), size)]
        for group in groups:
            yield Sheet(evidence.unit, evidence.kind, method, draw, tuple(group))


def _question(
    name: str,
    sheet: Sheet,
    explanation: str,
    prompt: Prompt,
    scores: ScoresConfig,
    excerpts: Excerpts,
) -> Question:
    shown = [
        excerpts.example(number, example.window, example.centre, scores.tokens_around, example.marked)
        for number, example in enumerate(sheet.examples, 1)
    ]
    count = len(shown)
    system, user = prompt.fill({"explanation": escaped(explanation), "examples": "\n".join(shown), "count": str(count)})

    def has_length(answer: Activity) -> str:
        return "" if len(answer.active) == count else f"{len(answer.active)} judgements on {count} excerpts"

    def in_range(answer: Intruder) -> str:
        return "" if 1 <= answer.intruder <= count else f"there is no excerpt {answer.intruder}"

    answer, check = (Intruder, in_range) if sheet.method == "intruder" else (Activity, has_length)
    return Question(name, system, user, answer, prompt.version, sheet.draw, check=check)


def _rows(
    sheets: dict[tuple[str, int], Sheet],
    asked: Asked,
    explained: dict[str, dict[str, Any]],
    endpoint: Endpoint,
    scores: ScoresConfig,
) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[tuple[Sheet, Any]]] = {}
    for key, sheet in sheets.items():
        groups.setdefault((sheet.unit, sheet.method), []).append((sheet, asked.answers[key].value))
    rows = []
    for (unit, method), judged in groups.items():
        base = unscored(unit, judged[0][0].kind, "") | {
            "explainer": explained[unit]["explainer"], "method": method, "judge": endpoint.name,
            "target": "tokens" if method == "fuzzing" else "window", "draws": scores.draws,
            "n_failed": sum(len(sheet.examples) for sheet, value in judged if value is None),
        }  # fmt: skip
        answered = [(sheet, value) for sheet, value in judged if value is not None]
        if not answered:
            rows.append(base | {"status": "failed", "detail": "no request of this unit was answered"})
        elif method == "intruder":
            rows.append(base | _intruder_score(answered))
        else:
            rows.append(base | _activity_score(answered))
    return rows


def _activity_score(judged: list[tuple[Sheet, Any]]) -> dict[str, Any]:
    told = [
        (sheet.draw, example, said)
        for sheet, value in judged
        for example, said in zip(sheet.examples, value.active, strict=True)
    ]
    judgements = _judgements(told)
    fires = [each.active for each in judgements if each.fires]
    typical = [each.active for each in judgements if each.typical]
    random = [each.active for each in judgements if each.random]
    hard = [each.active for each in judgements if each.hard]
    quiet = [each.active for each in judgements if not each.fires]
    if not fires or not quiet:
        return {"status": "insufficient", "detail": "no firing example was answered, or none that does not fire"}
    middle, low, high = balanced(sum(fires), len(fires), len(quiet) - sum(quiet), len(quiet))
    per_draw = [_accuracy([each for each in told if each[0] == draw]) for draw in sorted({each[0] for each in told})]
    sensitivity = sum(fires) / len(fires)
    return {
        "balanced_accuracy": middle,
        "ci_low": low,
        "ci_high": high,
        "sensitivity": sensitivity,
        "sensitivity_typical": sum(typical) / len(typical) if typical else None,
        "specificity": 1 - sum(quiet) / len(quiet),
        "precision_random": precision(sensitivity, random),
        "precision_hard": precision(sensitivity, hard),
        "n_examples": len(judgements),
        "draw_spread": float(np.std(per_draw, ddof=1)) if len(per_draw) > 1 else None,
        "status": "ok",
    }


def _judgements(told: list[tuple[int, Example, bool]]) -> list[Judgement]:
    """Each excerpt once: draws show nearly the same ones, and an interval that counts repeats is too narrow."""
    groups: dict[tuple[int, int, bool], list[tuple[Example, bool]]] = {}
    for _, example, said in told:
        key = (example.window.rollout_id, example.centre, example.fires)
        groups.setdefault(key, []).append((example, said))
    return [
        Judgement(
            fires=fires,
            typical=fires and group[0][0].window.typical,
            random=not fires and not all(example.hard for example, _ in group),
            hard=not fires and any(example.hard for example, _ in group),
            active=sum(said for _, said in group) / len(group),
        )
        for (_, _, fires), group in groups.items()
    ]


def _accuracy(told: list[tuple[int, Example, bool]]) -> float:
    fires = [said for _, example, said in told if example.fires]
    quiet = [not said for _, example, said in told if not example.fires]
    return ((sum(fires) / len(fires) if fires else 0.5) + (sum(quiet) / len(quiet) if quiet else 0.5)) / 2


def _intruder_score(judged: list[tuple[Sheet, Any]]) -> dict[str, Any]:
    """Share of right picks, each intruder counted once; chance is one over the number of excerpts, five.

    A unit has about eight quiet excerpts, however many questions are drawn from them.
    """
    picks: dict[tuple[int, int], list[bool]] = {}
    for sheet, value in judged:
        intruder = next(example for example in sheet.examples if not example.fires)
        right = not sheet.examples[value.intruder - 1].fires
        picks.setdefault((intruder.window.rollout_id, intruder.centre), []).append(right)
    right = [sum(each) / len(each) for each in picks.values()]
    low, high = wilson(sum(right), len(right))
    return {
        "balanced_accuracy": sum(right) / len(right),
        "ci_low": low,
        "ci_high": high,
        "n_examples": len(right),
        "status": "ok",
    }
