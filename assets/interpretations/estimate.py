"""What explaining and scoring will cost and take, before there is any data: for `lorascope plan`."""

from collections.abc import Mapping

from assets.contexts.config import ContextsConfig
from assets.interpretations.config import PROMPTS, STATISTICAL, InterpretationsConfig, ScoresConfig
from assets.interpretations.judge import judge_endpoint, most_requests
from assets.interpretations.label import endpoint_of
from resources.compute import ComputeConfig
from resources.llm.prices import price_of
from resources.llm.prompts import load_prompt
from resources.llm.question import TOKENS_PER_TOKEN
from resources.section import Sections, section_of
from resources.units import Kind
from resources.work import WorkEstimate, asking

TOKENS_PER_LISTED = 6
"""A quoted token, its activation and the line break."""
LISTED_SHARE = 0.4
"""Share of `tokens_listed` that a context fills on average."""
LABEL_TOKENS = 800
"""Answer of one label, reasoning included (interpretation note, section 4: about 0.8k)."""
JUDGE_TOKENS = 150
"""Answer of one judgement of five excerpts."""


def explain_dollars(sections: Sections, units: Mapping[Kind, int], compute: ComputeConfig) -> float:
    """Likely US dollars of `interpretations` for so many units, nothing being in the cache yet."""
    knobs = section_of(sections, InterpretationsConfig)
    if knobs.provider == STATISTICAL:
        return 0.0
    shown = (2 * knobs.tokens_around + 1) * TOKENS_PER_TOKEN
    listed = knobs.tokens_listed * LISTED_SHARE * TOKENS_PER_LISTED
    seen = section_of(sections, ContextsConfig).k * (1 - knobs.held_out_share)
    tokens = load_prompt(PROMPTS, knobs.prompt).likely_tokens + min(seen, knobs.contexts_shown) * (shown + listed)
    price = price_of(endpoint_of(knobs), compute.llm_mode)
    return sum(_explained(knobs, units)) * knobs.samples * price.dollars(int(tokens), LABEL_TOKENS)


def score_dollars(sections: Sections, units: Mapping[Kind, int], compute: ComputeConfig) -> float:
    """Likely US dollars of `interpretation_scores` for so many units."""
    knobs, scores = section_of(sections, InterpretationsConfig), section_of(sections, ScoresConfig)
    if knobs.provider == STATISTICAL:
        return 0.0
    each = (2 * scores.tokens_around + 1) * TOKENS_PER_TOKEN
    price = price_of(judge_endpoint(knobs, scores), compute.llm_mode)
    shown = scores.examples_per_request * each
    prompts = {method: load_prompt(PROMPTS, method).likely_tokens + shown for method in scores.methods}
    dollars = {method: price.dollars(int(tokens), JUDGE_TOKENS) for method, tokens in prompts.items()}
    return _judged(knobs, scores, units) * sum(most_requests(name, scores) * dollars[name] for name in scores.methods)


def explain_hours(sections: Sections, units: Mapping[Kind, int], compute: ComputeConfig) -> WorkEstimate | None:
    """Time until every unit has its labels; None for the offline explainer."""
    knobs = section_of(sections, InterpretationsConfig)
    if knobs.provider == STATISTICAL:
        return None
    return asking(sum(_explained(knobs, units)) * knobs.samples, LABEL_TOKENS, compute)


def score_hours(sections: Sections, units: Mapping[Kind, int], compute: ComputeConfig) -> WorkEstimate | None:
    """Time until every method has judged every unit; None for the offline explainer."""
    knobs, scores = section_of(sections, InterpretationsConfig), section_of(sections, ScoresConfig)
    if knobs.provider == STATISTICAL:
        return None
    requests = sum(most_requests(method, scores) for method in scores.methods)
    return asking(_judged(knobs, scores, units) * requests, JUDGE_TOKENS, compute)


def _explained(knobs: InterpretationsConfig, units: Mapping[Kind, int]) -> list[int]:
    """Units of each kind that is explained."""
    return [count for kind, count in units.items() if kind in knobs.kinds]


def _judged(knobs: InterpretationsConfig, scores: ScoresConfig, units: Mapping[Kind, int]) -> int:
    """Units that an LLM scores, where it explained all."""
    return sum(min(count, scores.units_per_kind or count) for count in _explained(knobs, units))
