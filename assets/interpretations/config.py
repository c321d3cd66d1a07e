"""Knobs of explaining and scoring, and the room's two stages. Defaults are the paper's values where it gives them."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator

from resources.llm.endpoint import Effort, Provider
from resources.llm.prompts import check_slots, prompt_files
from resources.section import Address, PromptName, Section, check_address
from resources.stage import Needs, Stage
from resources.units import Kind

STATISTICAL: Final = "statistical"
"""The explainer whose explanations and classes are predicates', not an LLM's as in the paper."""

PROMPTS = Path(__file__).parent / "prompts"
"""One file per prompt."""


class InterpretationsConfig(Section):
    """The `interpretations` section."""

    provider: Literal[Provider, "statistical"] = "openai"
    """Who explains. `statistical` is offline and free; its classes are never merged with an LLM's."""
    model: str = "gpt-5-mini"
    """The provider's name of the model (paper: gpt-5-mini for labels). Unused by `statistical`."""
    base_url: Address = ""
    """Address of the endpoint, needed for `openai-compatible` (vLLM, `transformers serve`); empty: the vendor's own."""
    effort: Effort = ""
    """Reasoning effort asked of the model; empty: the model's default (paper: silent)."""
    max_output_tokens: int = Field(default=16000, ge=64, le=128000)
    """Most tokens of one answer, reasoning included (authors' code: 16000)."""
    model_context: int = Field(default=128000, ge=512)
    """Tokens the model can read; a longer prompt loses its weakest contexts, and the row's detail says so."""
    prompt: PromptName = "b1"
    """File in `prompts/` (without .txt) that holds the prompt (paper: B.1). Its content is part of every cache key."""
    samples: int = Field(default=1, ge=1, le=9)
    """Answers asked per unit, each over its own shuffle of the contexts (authors' code: one, shuffled); more than one
    measures label stability."""
    kinds: tuple[Kind, ...] = Field(default=("adapter", "neuron", "latent"), min_length=1)
    """Which kinds of unit are explained (paper: all three)."""

    contexts_shown: int = Field(default=64, ge=2, le=1000)
    """Strongest contexts a unit is explained from (paper: 64), as far as `contexts.k` leaves so many outside the
    held-out rollouts."""
    tokens_around: int = Field(default=16, ge=1, le=512)
    """Tokens shown on either side of the peak (authors' code: 8 to 16)."""
    shown_activation: float = Field(default=0.5, ge=0, le=10)
    """Tokens at or above this, on the 0 to 10 scale, are listed with their activation (authors' code: 0.5)."""
    tokens_listed: int = Field(default=10, ge=1, le=100)
    """Most tokens listed with their activation per context (authors' code: 10)."""
    contexts_per_rollout: int = Field(default=4, ge=1, le=1000)
    """Most of a unit's strongest contexts of one rollout that are shown or counted (authors' code: 4, latents only)."""
    held_out_share: float = Field(default=0.25, ge=0.05, le=0.5)
    """Share of rollouts that no explainer sees and every score is measured on (paper: no scores)."""
    seed: int = Field(default=42, ge=0)
    """Seed of the split by rollout, of the shuffles and of every sample (paper: 42)."""

    min_contexts: int = Field(default=12, ge=4, le=200)
    """Fewer fit contexts than this and the statistical explainer says `insufficient`."""
    background_tokens: int = Field(default=32768, ge=256)
    """Random corpus tokens against which predicates are tested."""
    null_units: int = Field(default=200, ge=20, le=10000)
    """Sets of random positions, matched in token frequency, that go through the same procedure: the null."""

    @model_validator(mode="after")
    def _can_explain(self) -> "InterpretationsConfig":
        check_address(self.provider, self.base_url, "base_url")
        if self.provider != STATISTICAL:
            check_slots(PROMPTS, self.prompt, ("examples",), ("count",))
        elif self.contexts_shown < self.min_contexts:
            raise ValueError(
                f"contexts_shown {self.contexts_shown} is below min_contexts {self.min_contexts}: no unit would have "
                "enough"
            )
        return self

    def sources(self) -> tuple[str, ...]:
        """The prompt, where an LLM explains: an edited one makes explanations, and scores after them, anew."""
        return () if self.provider == STATISTICAL else prompt_files(PROMPTS, self.prompt)

    def vendors(self) -> tuple[str, ...]:
        """Who explains, where an LLM does."""
        return () if self.provider == STATISTICAL else (self.provider,)


class ScoresConfig(Section):
    """The `scores` section. Provider, split and rendering are those of the explanations that are scored."""

    methods: tuple[Literal["detection", "fuzzing", "intruder"], ...] = ("detection",)
    """What an LLM judges; detection is the stable one ("Building Fast, Evaluating Slow", 2026)."""
    judge_model: str = ""
    """The provider's name of the judging model; empty: the one that explained."""
    units_per_kind: int | None = Field(default=None, ge=1)
    """Most units per kind that an LLM scores, evenly spread over those explained; null: all."""
    examples: int = Field(default=40, ge=4, le=1000)
    """Held-out examples of one draw: half positive, a quarter random and a quarter hard negatives."""
    examples_per_request: int = Field(default=5, ge=1, le=50)
    """Examples judged in one LLM request (delphi: 5)."""
    draws: int = Field(default=2, ge=2, le=20)
    """Independent draws of examples; their spread is reported."""
    tokens_around: int = Field(default=16, ge=1, le=256)
    """Tokens of an excerpt on either side of its centre (delphi: 32 in all)."""

    def sources(self) -> tuple[str, ...]:
        """The judge's prompts, also where nobody judges: who explains is another section's."""
        return prompt_files(PROMPTS, *self.methods)


INTERPRETATIONS = Stage(
    asset="interpretations",
    room="interpretations",
    code_version=7,
    call="assets.interpretations.explain:explain",
    artifact="assets.interpretations.artifact:Interpretations",
    sections=("interpretations",),
    inputs=("s1k_dataset", "max_activating_contexts"),
    needs=Needs(
        minutes=240,
        cost_model="assets.interpretations.estimate:explain_dollars",
        time_model="assets.interpretations.estimate:explain_hours",
    ),
)
INTERPRETATION_SCORES = Stage(
    asset="interpretation_scores",
    room="interpretations",
    code_version=7,
    call="assets.interpretations.score:score",
    artifact="assets.interpretations.artifact:Scores",
    sections=("scores",),
    inputs=("s1k_dataset", "max_activating_contexts", "interpretations"),
    needs=Needs(
        minutes=480,
        cost_model="assets.interpretations.estimate:score_dollars",
        time_model="assets.interpretations.estimate:score_hours",
    ),
)
