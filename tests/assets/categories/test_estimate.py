"""Estimates before a run are near what the same work is charged."""

import pytest

from assets.categories.config import CategoriesConfig
from assets.categories.contexts import strongest
from assets.categories.estimate import ASSIGNMENT_TOKENS, categorise_dollars, categorise_hours
from assets.categories.llm import PROMPTS as CATEGORY_PROMPTS
from assets.categories.llm import _assignment
from assets.categories.llm import endpoint_of as assigning_endpoint
from assets.categories.statistical import TAXONOMY
from assets.contexts.config import ContextsConfig
from assets.interpretations.config import PROMPTS, InterpretationsConfig, ScoresConfig
from assets.interpretations.corpus import Corpus
from assets.interpretations.estimate import LABEL_TOKENS, explain_dollars, score_dollars, score_hours
from assets.interpretations.evidence import read_evidence
from assets.interpretations.excerpts import Excerpts
from assets.interpretations.label import endpoint_of, unit_question
from resources.compute import ComputeConfig
from resources.llm.prices import price_of
from resources.llm.prompts import load_prompt
from resources.units import Kind
from tests.assets.interpretations.conftest import Explained

LIVE, BATCH = ComputeConfig(), ComputeConfig(llm_mode="batch")
SECTIONS = {
    "contexts": ContextsConfig(),
    "interpretations": InterpretationsConfig(),
    "scores": ScoresConfig(),
    "categories": CategoriesConfig(),
}


def latents(count: int) -> dict[Kind, int]:
    return {"latent": count}


def test_only_kinds_and_units_that_are_asked_about_are_priced() -> None:
    units: dict[Kind, int] = {"adapter": 896, "neuron": 7680, "latent": 3584}
    asked = {**SECTIONS, "interpretations": InterpretationsConfig(kinds=("latent", "adapter"))}
    for dollars in (explain_dollars, score_dollars, categorise_dollars):
        assert dollars(asked, units, LIVE) == dollars(SECTIONS, latents(3584 + 896), LIVE)
    filed = {**SECTIONS, "categories": CategoriesConfig(kinds=("latent",))}
    assert categorise_dollars(filed, units, LIVE) == categorise_dollars(SECTIONS, latents(3584), LIVE)
    few = {**SECTIONS, "scores": ScoresConfig(units_per_kind=1000)}
    assert score_dollars(few, units, LIVE) == score_dollars(SECTIONS, latents(896 + 1000 + 1000), LIVE)


def test_the_papers_labels_cost_what_the_note_works_out() -> None:
    # 3584 latents at 64 contexts of 33 tokens: about 9 dollars live, half in a batch.
    dollars = explain_dollars(SECTIONS, latents(3584), LIVE)
    assert 6 < dollars < 12
    assert explain_dollars(SECTIONS, latents(3584), BATCH) == pytest.approx(dollars / 2)


def test_labels_cost_by_the_contexts_that_are_left_to_show() -> None:
    # Of 64 contexts a quarter is held out, so 48 are shown; of 96 the paper's 64, of 128 no more.
    cost = [
        explain_dollars({**SECTIONS, "contexts": ContextsConfig(k=k)}, latents(12_160), LIVE) for k in (64, 96, 128)
    ]
    each = 33 * 1.25 + 10 * 0.4 * 6
    assert cost[1] - cost[0] == pytest.approx(12_160 * 16 * each * 0.25e-6, rel=0.01)
    assert cost[2] == cost[1]


def test_statistical_costs_nothing() -> None:
    free = {
        "interpretations": InterpretationsConfig(provider="statistical"),
        "scores": ScoresConfig(),
        "categories": CategoriesConfig(provider="statistical"),
    }
    assert explain_dollars(free, latents(10**6), LIVE) == score_dollars(free, latents(10**6), LIVE) == 0
    assert categorise_dollars(free, latents(10**6), LIVE) == 0


def test_every_unit_adds_the_same() -> None:
    assert score_dollars(SECTIONS, latents(200), LIVE) == pytest.approx(2 * score_dollars(SECTIONS, latents(100), LIVE))
    first, second, third = (categorise_dollars(SECTIONS, latents(units), LIVE) for units in (0, 100, 200))
    assert 0 < first < second
    assert third - second == pytest.approx(second - first)


@pytest.mark.parametrize("size", [5, 20])
def test_intruder_questions_are_as_many_as_are_asked_whatever_the_other_methods_show_at_once(size: int) -> None:
    scores = ScoresConfig(methods=("detection", "intruder"), examples=40, draws=2, examples_per_request=size)
    told = score_hours({**SECTIONS, "scores": scores}, latents(100), LIVE)
    assert told is not None
    assert told.how.startswith(f"{100 * 2 * (40 // size + 4)} requests")


def test_the_time_of_assignments_counts_the_kinds_that_are_explained_and_filed() -> None:
    units: dict[Kind, int] = {"adapter": 10, "neuron": 200, "latent": 3000}
    some = {
        **SECTIONS,
        "interpretations": InterpretationsConfig(kinds=("adapter", "neuron")),
        "categories": CategoriesConfig(kinds=("neuron", "latent")),
    }
    told = categorise_hours(some, units, LIVE)
    assert told is not None and told.how.startswith("200 requests of 300 tokens")
    assert categorise_hours({**some, "categories": CategoriesConfig(provider="statistical")}, units, LIVE) is None


def test_the_estimate_of_assignments_is_near_the_real_prompts(explained: Explained) -> None:
    knobs = CategoriesConfig()
    prompt = load_prompt(CATEGORY_PROMPTS, knobs.assign_prompt)
    row = {"unit": "latent:4", "explanation": "numbers that stand after an operator in a sum or product"}
    found = strongest(explained.contexts, explained.dataset, {"latent:4"}, knobs.contexts_shown, knobs.tokens_around)
    question = _assignment(row, found["latent:4"], TAXONOMY, prompt)
    real = price_of(assigning_endpoint(knobs), "live").dollars(question.likely_input_tokens, ASSIGNMENT_TOKENS)
    each = (categorise_dollars(SECTIONS, latents(1000), LIVE) - categorise_dollars(SECTIONS, latents(0), LIVE)) / 1000
    assert 0.7 < each / real < 1.4


def test_the_estimate_is_near_the_real_prompts(explained: Explained) -> None:
    knobs = InterpretationsConfig(tokens_around=8)
    corpus = Corpus.open(explained.dataset)
    prompt, excerpts = load_prompt(PROMPTS, "b1"), Excerpts(explained.dataset)
    full = [each for each in read_evidence(explained.contexts, corpus, knobs) if len(each.shown(64)) > 40]
    questions = [unit_question(each, 0, prompt, knobs, excerpts) for each in full]
    price = price_of(endpoint_of(knobs), "live")
    real = sum(price.dollars(question.likely_input_tokens, LABEL_TOKENS) for question in questions)
    guessed = explain_dollars({**SECTIONS, "interpretations": knobs}, latents(len(questions)), LIVE)
    assert 0.6 < guessed / real < 1.6
