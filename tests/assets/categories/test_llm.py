"""What an LLM is shown to make a taxonomy and to assign a unit."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from assets.categories import config
from assets.categories.config import CategoriesConfig
from assets.categories.contexts import strongest
from assets.categories.llm import TaxonomyAnswer, _taxonomy_fault, make_taxonomy
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.llm.prompts import escaped
from tests.assets.benchmarks.local_server import Reply, chat, serving
from tests.assets.interpretations.conftest import SILENT, Explained


def test_a_taxonomy_is_made_of_as_many_directions_as_neurons_and_no_latent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path))
    asked: list[str] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        asked.append(request["messages"][1]["content"])
        entry = {"name": "n", "description": "d"}
        category = entry | {"subcategories": [entry | {"string_id": "x"}]}
        return chat(json.dumps({"categories": [category, category]}))

    units = {"adapter": 9, "neuron": 2, "latent": 9}
    rows = [{"kind": kind, "explanation": f"{kind} {n}"} for kind, count in units.items() for n in range(count)]
    with serving(answer) as url:
        knobs = {"taxonomy_provider": "openai-compatible", "taxonomy_base_url": url}
        for most in (3, 20):
            settings = CategoriesConfig.model_validate({**knobs, "taxonomy_units": most})
            # its one request is not worth a day's wait for a batch
            taxonomy, _ = make_taxonomy(settings, ComputeConfig(profile="cpu", llm_mode="batch"), rows, SILENT)
            assert [category.subcategories[0].string_id for category in taxonomy.categories] == ["1.1", "2.1"]
    told = [re.findall(r"^- (\w+) \d$", text, re.MULTILINE) for text in asked]
    assert [sorted(kinds) for kinds in told] == [["adapter", "neuron"], ["adapter", "adapter", "neuron", "neuron"]]


@pytest.mark.parametrize("kind", ["adapter", "neuron"])
def test_without_explained_directions_or_neurons_no_taxonomy_is_asked_for(kind: str) -> None:
    with pytest.raises(BadInput, match="one of the two kinds has none"):
        make_taxonomy(CategoriesConfig(), ComputeConfig(), [{"kind": kind, "explanation": "x"}] * 9, SILENT)


def test_a_taxonomy_of_one_category_or_with_an_empty_one_is_unusable() -> None:
    entry = {"name": "n", "description": "d"}
    full, empty = entry | {"subcategories": [entry | {"string_id": "x"}]}, entry | {"subcategories": []}
    said = [bool(_taxonomy_fault(TaxonomyAnswer.model_validate({"categories": each}))) for each in (
        [full], [full, empty], [full, full],
    )]  # fmt: skip
    assert said == [True, True, False]


def test_after_unusable_taxonomies_another_seed_asks_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path))
    asked: list[str] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        asked.append(request["messages"][1]["content"])
        return chat(json.dumps({"categories": []}))

    rows = [{"kind": kind, "explanation": f"{kind} {n}"} for kind in ("adapter", "neuron") for n in range(9)]
    counts = []
    with serving(answer) as url:
        for seed in (1, 1, 2):
            knobs = {"taxonomy_provider": "openai-compatible", "taxonomy_base_url": url, "seed": seed}
            settings = CategoriesConfig.model_validate(knobs)
            with pytest.raises(
                BadInput, match=r"; its answers are kept .* set another .* or another categories\.seed$"
            ):
                make_taxonomy(settings, ComputeConfig(profile="cpu"), rows, SILENT)
            counts.append(len(asked))
    assert counts[0] == counts[1] < counts[2]


def test_a_unit_is_assigned_from_its_strongest_contexts_with_the_peak_marked(explained: Explained) -> None:
    rows = pq.read_table(explained.contexts / "contexts.parquet").to_pylist()
    wanted = []
    for row in rows:
        if (row["unit"], row["sample"]) == ("latent:4", "top") and row["rank"] < 2:
            words, at = [escaped(word) for word in explained.world.texts[row["rollout_id"]]], row["position"]
            after = "".join(words[at + 1 : at + 2])
            wanted.append(f"<context>{words[at - 1]}«{words[at]}»{after}</context>")
    found = strongest(explained.contexts, explained.dataset, {"latent:4", "latent:2"}, 2, 1)
    assert found == {"latent:4": "\n".join(wanted)}
    assert strongest(explained.contexts, explained.dataset, {"latent:4"}, 0, 1) == {}


def test_an_assignment_must_name_the_unit_and_a_taxonomy_may_be_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "PROMPTS", tmp_path)
    for name, user in {"own": "Answer with these two: ...", "no_unit": "Choose from {{taxonomy}}"}.items():
        (tmp_path / f"{name}.txt").write_text(f"# system\nSort.\n# user\n{user}\n", encoding="utf-8")
    (tmp_path / "fits.txt").write_text("# system\n{{taxonomy}}\n# user\n{{explanation}}\n", encoding="utf-8")
    assert CategoriesConfig(taxonomy_prompt="own", assign_prompt="fits").taxonomy_prompt == "own"
    with pytest.raises(ValidationError, match=r"no_unit\.txt has no slot {{explanation}}: write it where"):
        CategoriesConfig(taxonomy_prompt="own", assign_prompt="no_unit")
