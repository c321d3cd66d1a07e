"""The paper's taxonomy: one model makes it from explanations, another puts every unit into one of its entries.

The authors' repository (jnward/reasoning-lora-interp) holds no prompt for B.2 and no taxonomy file; of their assignment
(`hierarchical_categorize_with_examples.py`) ours keeps five contexts of ten tokens around the peak, and asks for the
entry's `string_id` alone, which a category and subcategory that do not belong together cannot contradict.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from assets.categories.artifact import Taxonomy, category_row
from assets.categories.config import PROMPTS, CategoriesConfig
from assets.categories.contexts import strongest
from assets.interpretations.config import STATISTICAL
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.llm.ask import Asked, Bill, ask
from resources.llm.endpoint import Endpoint
from resources.llm.limits import Limits
from resources.llm.prompts import Prompt, escaped, load_prompt
from resources.llm.question import Question
from resources.progress import Progress

TAXONOMY_SECONDS = 600.0
"""Time-out of the one request that makes the taxonomy: a long answer of a large model."""


class SubcategoryAnswer(BaseModel, extra="forbid"):
    """One entry, as a model writes it."""

    string_id: str
    name: str
    description: str


class CategoryAnswer(BaseModel, extra="forbid"):
    """One category, as a model writes it."""

    name: str
    description: str
    subcategories: list[SubcategoryAnswer]


class TaxonomyAnswer(BaseModel, extra="forbid"):
    """The answer of B.2."""

    categories: list[CategoryAnswer]


class Assignment(BaseModel, extra="forbid"):
    """The answer for one unit."""

    string_id: str


def categorise_units(
    knobs: CategoriesConfig,
    compute: ComputeConfig,
    dataset: Path,
    contexts: Path,
    explained: list[dict[str, Any]],
    progress: Progress,
) -> tuple[Taxonomy, list[dict[str, Any]], Bill]:
    """Make the taxonomy, then assign every explained unit of `knobs.kinds`: a row each.

    Raises:
        BadInput: when no usable taxonomy comes, or as `ask` does.
    """
    taxonomy, made = make_taxonomy(knobs, compute, explained, progress)
    assigned = [row for row in explained if row["kind"] in knobs.kinds]
    endpoint = endpoint_of(knobs)
    prompt = load_prompt(PROMPTS, knobs.assign_prompt)
    wanted = {row["unit"] for row in assigned}
    shown = strongest(contexts, dataset, wanted, knobs.contexts_shown, knobs.tokens_around)
    questions = (_assignment(row, shown.get(row["unit"], ""), taxonomy, prompt) for row in assigned)
    asked = ask(questions, len(assigned), endpoint, Limits.of(compute), progress, "categorise")
    asked.check_usable()
    rows = [_row(row, asked, taxonomy, endpoint) for row in assigned]
    return taxonomy, rows, made + asked.bill


def endpoint_of(knobs: CategoriesConfig) -> Endpoint:
    """The endpoint that assigns units."""
    assert knobs.provider != STATISTICAL  # the caller branches on it
    return Endpoint(
        knobs.provider, knobs.model, knobs.base_url, knobs.effort, knobs.max_output_tokens, knobs.model_context
    )


def taxonomy_endpoint(knobs: CategoriesConfig) -> Endpoint:
    """The endpoint that makes the taxonomy."""
    return Endpoint(knobs.taxonomy_provider, knobs.taxonomy_model, knobs.taxonomy_base_url, "", knobs.max_output_tokens)


def make_taxonomy(
    knobs: CategoriesConfig, compute: ComputeConfig, explained: list[dict[str, Any]], progress: Progress
) -> tuple[Taxonomy, Bill]:
    """Ask for a taxonomy of an equal number of adapter directions and neurons (paper B.2), shuffled.

    Raises:
        BadInput: when neither kind is explained, or no usable taxonomy comes.
    """
    rng = np.random.default_rng([knobs.seed, 6])
    pools = {kind: [row for row in explained if row["kind"] == kind] for kind in ("adapter", "neuron")}
    each = min(knobs.taxonomy_units // 2, *(len(pool) for pool in pools.values()))
    if not each:
        raise BadInput("the taxonomy needs explained adapter directions and neurons; one of the two kinds has none")
    chosen = [pool[place] for pool in pools.values() for place in rng.choice(len(pool), each, replace=False)]
    lines = [escaped(chosen[place]["explanation"]) for place in rng.permutation(len(chosen))]
    prompt = load_prompt(PROMPTS, knobs.taxonomy_prompt)
    slots = {"adapters": str(each), "neurons": str(each), "explanations": "\n".join(f"- {line}" for line in lines)}
    system, user = prompt.fill(slots)
    endpoint = taxonomy_endpoint(knobs)
    question = Question("taxonomy", system, user, TaxonomyAnswer, prompt.version, check=_taxonomy_fault)
    limits = Limits.of(compute.model_copy(update={"llm_mode": "live", "llm_timeout_s": TAXONOMY_SECONDS}))
    asked = ask([question], 1, endpoint, limits, progress, "taxonomy")
    answer = asked.answers["taxonomy", 0]
    if not isinstance(answer.value, TaxonomyAnswer):
        raise BadInput(
            f"{endpoint.name} gave no usable taxonomy: {answer.failure}; its answers are kept and not asked for again: "
            "set another categories.taxonomy_model, or another categories.seed"
        )
    return taxonomy_of(answer.value), asked.bill


def _taxonomy_fault(answer: TaxonomyAnswer) -> str:
    if len(answer.categories) < 2 or any(not category.subcategories for category in answer.categories):
        return "the taxonomy needs two categories or more, each with a subcategory"
    return ""


def taxonomy_of(answer: TaxonomyAnswer) -> Taxonomy:
    """The taxonomy with ids counted anew, whatever the model wrote."""
    return Taxonomy.numbered(
        (category.name, category.description, [(entry.name, entry.description) for entry in category.subcategories])
        for category in answer.categories
    )


def taxonomy_text(taxonomy: Taxonomy) -> str:
    """The taxonomy as an indented list for a prompt; the same for every unit, so that vendors cache it."""
    lines: list[str] = []
    for category in taxonomy.categories:
        lines.append(f"{category.id} {escaped(category.name)}: {escaped(category.description)}")
        lines += [f"  {e.string_id} {escaped(e.name)}: {escaped(e.description)}" for e in category.subcategories]
    return "\n".join(lines)


def _assignment(row: dict[str, Any], contexts: str, taxonomy: Taxonomy, prompt: Prompt) -> Question:
    slots = {"taxonomy": taxonomy_text(taxonomy), "explanation": escaped(row["explanation"]), "contexts": contexts}
    system, user = prompt.fill(slots)

    def check(answer: Assignment) -> str:
        return "" if taxonomy.find(answer.string_id) else f"'{answer.string_id[:40]}' is no id of the taxonomy"

    def shorter() -> Question | None:
        return _assignment(row, "", taxonomy, prompt) if contexts else None

    return Question(row["unit"], system, user, Assignment, prompt.version, check=check, shorter=shorter)


def _row(row: dict[str, Any], asked: Asked, taxonomy: Taxonomy, endpoint: Endpoint) -> dict[str, Any]:
    answer = asked.answers[row["unit"], 0]
    if isinstance(answer.value, Assignment):
        return category_row(row, taxonomy, answer.value.string_id, endpoint.name, "")
    return category_row(row, taxonomy, "", endpoint.name, answer.failure)
