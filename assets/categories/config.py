"""Knobs of the taxonomy, the assignment and the densities, and the room's two stages."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from assets.interpretations.config import STATISTICAL
from resources.llm.endpoint import Effort, Provider
from resources.llm.prompts import check_slots, prompt_files
from resources.section import Address, PromptName, Section, check_address
from resources.stage import Needs, Stage
from resources.units import Kind

PROMPTS = Path(__file__).parent / "prompts"
"""One file per prompt."""


class CategoriesConfig(Section):
    """The `categories` section."""

    provider: Literal[Provider, "statistical"] = "openai"
    """Who assigns units to categories. `statistical` uses a fixed taxonomy of predicate kinds, offline and free."""
    model: str = "gpt-5-mini"
    """Model that assigns each unit (paper: gpt-5-mini; authors' code: gpt-5)."""
    base_url: Address = ""
    """Address of the assigning endpoint, needed for `openai-compatible`; empty: the vendor's own."""
    taxonomy_provider: Provider = "anthropic"
    """Who makes the taxonomy."""
    taxonomy_model: str = "claude-opus-4-5"
    """Model that makes the taxonomy. The paper's claude-opus-4.1 has left the vendor's list; this is its successor."""
    taxonomy_base_url: Address = ""
    """Address of the taxonomy's endpoint; empty: the vendor's own."""
    effort: Effort = ""
    """Reasoning effort of the assignment; empty: the model's default (authors' code: high, with gpt-5)."""
    max_output_tokens: int = Field(default=16000, ge=64, le=128000)
    """Most tokens of one answer, reasoning included."""
    model_context: int = Field(default=128000, ge=512)
    """Tokens the assigning model can read; a longer prompt loses its weakest contexts."""
    taxonomy_units: int = Field(default=200, ge=2, le=5000)
    """Explanations the taxonomy is made from, half adapter directions and half neurons (paper: an equal number)."""
    contexts_shown: int = Field(default=5, ge=0, le=64)
    """Strongest contexts shown with a unit's explanation at assignment (authors' code: 5)."""
    tokens_around: int = Field(default=10, ge=1, le=256)
    """Tokens shown on either side of the peak at assignment (authors' code: 10)."""
    taxonomy_prompt: PromptName = "b2"
    """File in `prompts/` (without .txt) that asks for the taxonomy (paper: B.2)."""
    assign_prompt: PromptName = "assign"
    """File in `prompts/` (without .txt) that asks for one unit's category."""
    kinds: tuple[Kind, ...] = Field(default=("adapter", "neuron", "latent"), min_length=1)
    """Which kinds of unit are assigned."""
    rollouts: int | None = Field(default=None, ge=1)
    """Rollouts over which firing activations are summed, drawn by `seed`; null: all (paper: a subset, its size not
    given)."""
    seed: int = Field(default=42, ge=0)
    """Seed of the sample of units and of rollouts (authors' code: 42)."""

    @model_validator(mode="after")
    def _addressed(self) -> "CategoriesConfig":
        if self.provider != STATISTICAL:
            check_address(self.provider, self.base_url, "base_url")
            check_address(self.taxonomy_provider, self.taxonomy_base_url, "taxonomy_base_url")
            # A taxonomy of one's own asks for itself, whatever was explained.
            check_slots(PROMPTS, self.taxonomy_prompt, (), ("adapters", "neurons", "explanations"))
            check_slots(PROMPTS, self.assign_prompt, ("explanation",), ("taxonomy", "contexts"))
        return self

    def sources(self) -> tuple[str, ...]:
        """The prompts, where an LLM makes the categories: an edited one makes them anew."""
        asked = prompt_files(PROMPTS, self.taxonomy_prompt, self.assign_prompt)
        return () if self.provider == STATISTICAL else asked

    def vendors(self) -> tuple[str, ...]:
        """Who makes the taxonomy and who assigns, where LLMs do."""
        return () if self.provider == STATISTICAL else (self.taxonomy_provider, self.provider)


FEATURE_CATEGORIES = Stage(
    asset="feature_categories",
    room="categories",
    code_version=2,
    call="assets.categories.categorise:categorise",
    artifact="assets.categories.artifact:Categories",
    sections=("categories",),
    inputs=("s1k_dataset", "max_activating_contexts", "interpretations"),
    needs=Needs(
        minutes=120,
        cost_model="assets.categories.estimate:categorise_dollars",
        time_model="assets.categories.estimate:categorise_hours",
    ),
)
CATEGORY_DENSITIES = Stage(
    asset="category_densities",
    room="categories",
    code_version=9,
    call="assets.categories.densities:measure",
    artifact="assets.categories.artifact:Densities",
    sections=("categories",),
    inputs=(
        "feature_categories",
        "interpretations",
        "max_activating_contexts",
        "activation_shards",
        "neuron_shards",
        "batchtopk_sae",
    ),
    needs=Needs(minutes=60),
)
