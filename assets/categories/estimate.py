"""What the taxonomy and the assignments will cost and take, before there is any data: for `lorascope plan`."""

from collections.abc import Mapping

from assets.categories.config import PROMPTS, CategoriesConfig
from assets.categories.llm import endpoint_of, taxonomy_endpoint, taxonomy_text
from assets.categories.statistical import TAXONOMY
from assets.interpretations.config import STATISTICAL, InterpretationsConfig
from resources.compute import ComputeConfig
from resources.llm.prices import price_of
from resources.llm.prompts import load_prompt
from resources.llm.question import TOKENS_PER_TOKEN, TYPICAL_BYTES_PER_TOKEN
from resources.section import Sections, section_of
from resources.units import Kind
from resources.work import WorkEstimate, asking

EXPLANATION_TOKENS = 16
"""Ten words."""
TAXONOMY_TOKENS = 3000
"""Answer of the taxonomy request."""
ASSIGNMENT_TOKENS = 300
"""Answer of one assignment, reasoning included."""


def categorise_dollars(sections: Sections, units: Mapping[Kind, int], compute: ComputeConfig) -> float:
    """Likely US dollars of `feature_categories` for so many units, nothing being in the cache yet."""
    knobs = section_of(sections, CategoriesConfig)
    if knobs.provider == STATISTICAL:
        return 0.0
    # A taxonomy is not there yet; the offline one has the length of a typical one.
    shared = (
        load_prompt(PROMPTS, knobs.assign_prompt).likely_tokens + len(taxonomy_text(TAXONOMY)) / TYPICAL_BYTES_PER_TOKEN
    )
    own = knobs.contexts_shown * (2 * knobs.tokens_around + 1) * TOKENS_PER_TOKEN + EXPLANATION_TOKENS
    assigning = price_of(endpoint_of(knobs), compute.llm_mode).dollars(int(shared + own), ASSIGNMENT_TOKENS)
    prompt = load_prompt(PROMPTS, knobs.taxonomy_prompt)
    asked = int(prompt.likely_tokens + knobs.taxonomy_units * EXPLANATION_TOKENS)
    return _assigned(sections, units) * assigning + price_of(taxonomy_endpoint(knobs), "live").dollars(
        asked, TAXONOMY_TOKENS
    )


def categorise_hours(sections: Sections, units: Mapping[Kind, int], compute: ComputeConfig) -> WorkEstimate | None:
    """Time until every unit has its category; None for the offline taxonomy."""
    knobs = section_of(sections, CategoriesConfig)
    if knobs.provider == STATISTICAL:
        return None
    return asking(_assigned(sections, units), ASSIGNMENT_TOKENS, compute)


def _assigned(sections: Sections, units: Mapping[Kind, int]) -> int:
    """Units of the kinds that are explained and put into categories."""
    explained, filed = section_of(sections, InterpretationsConfig).kinds, section_of(sections, CategoriesConfig).kinds
    return sum(count for kind, count in units.items() if kind in explained and kind in filed)
