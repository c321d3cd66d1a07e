"""Answers that cannot be used: some are counted, and where none can be, nothing is stored as if it were a result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from assets.categories.categorise import CategoriseMetrics, categorise
from assets.categories.config import CategoriesConfig
from assets.interpretations.config import InterpretationsConfig, ScoresConfig
from assets.interpretations.explain import explain
from assets.interpretations.score import score
from resources.compute import ComputeConfig
from resources.errors import BadInput
from tests.assets.benchmarks.local_server import Reply, chat, serving
from tests.assets.interpretations.conftest import SILENT, Explained
from tests.resources.llm.conftest import home  # noqa: F401

COMPUTE = ComputeConfig(profile="cpu", llm_concurrency=8, llm_attempts=2, llm_timeout_s=5)
LABEL = {"explanation": "digits", "classification": 0, "classification_reasoning": "r"}


def _categorise(
    explained: Explained, out: Path, wrong: Callable[[int], bool], **chosen: tuple[str, ...]
) -> CategoriseMetrics:
    """With a model that gives its n-th unit an id of the taxonomy, or another one where `wrong(n)`."""
    entries = [{"string_id": "x", "name": "n", "description": "d"}]
    taxonomy = {"categories": [{"name": name, "description": "d", "subcategories": entries} for name in "ab"]}
    units: dict[str, int] = {}

    def answer(_: str, request: dict[str, Any]) -> Reply:
        if request["response_format"]["json_schema"]["name"] == "TaxonomyAnswer":
            return chat(json.dumps(taxonomy))
        number = units.setdefault(request["messages"][1]["content"], len(units))
        return chat(json.dumps({"string_id": "77.7" if wrong(number) else "1.1"}))

    with serving(answer) as url:
        asked = {"provider": "openai-compatible", "base_url": url}
        knobs = CategoriesConfig.model_validate(asked | {f"taxonomy_{name}": it for name, it in asked.items()} | chosen)
        return categorise(
            categories=knobs,
            **explained.inputs,
            interpretations=explained.interpretations,
            out=out,
            progress=SILENT,
            compute=COMPUTE,
        )


def test_unknown_categories_are_counted(explained: Explained, tmp_path: Path) -> None:
    done = _categorise(explained, tmp_path, lambda number: number < 2)
    rows = [row for row in pq.read_table(tmp_path / "categories.parquet").to_pylist() if not row["string_id"]]
    assert done.uncategorized == len(rows) == 2 < done.units
    assert (done.units, done.not_explained) == (explained.metrics.explained, explained.metrics.insufficient)
    assert all("is no id of the taxonomy" in row["detail"] for row in rows)


def test_the_taxonomy_is_made_of_directions_and_neurons_though_latents_alone_are_assigned(
    explained: Explained, tmp_path: Path
) -> None:
    done = _categorise(explained, tmp_path, lambda _: False, kinds=("latent",))
    kinds = pq.read_table(tmp_path / "categories.parquet")["kind"].to_pylist()
    assert kinds == ["latent"] * done.units
    assert done.requests + done.cached == done.units + 1  # the taxonomy is one
    assert (done.categories, done.subcategories) == (2, 2)
    assert done.counts == [{"kind": "latent", "category": "a", "subcategory": "n", "units": done.units}]


def test_categories_of_which_all_are_unknown_make_no_artifact(explained: Explained, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^none of \d+ answers can be used \('77.7' is no id of the taxonomy"):
        _categorise(explained, tmp_path, lambda _: True)
    assert not list(tmp_path.glob("*.parquet"))


def test_judgements_of_which_none_can_be_used_make_no_scores(explained: Explained, tmp_path: Path) -> None:
    def answer(_: str, request: dict[str, Any]) -> Reply:
        return chat(json.dumps(LABEL)) if request["response_format"]["json_schema"]["name"] == "Label" else 422

    for name in ("i", "s"):
        (tmp_path / name).mkdir()
    with serving(answer) as url:
        knobs = InterpretationsConfig(provider="openai-compatible", base_url=url)
        explain(interpretations=knobs, **explained.inputs, out=tmp_path / "i", progress=SILENT, compute=COMPUTE)
        with pytest.raises(BadInput, match=r"^none of \d+ answers can be used \(status_code: 422"):
            score(
                scores=ScoresConfig(examples=12),
                **explained.inputs,
                interpretations=tmp_path / "i",
                out=tmp_path / "s",
                progress=SILENT,
                compute=COMPUTE,
            )
    assert not list((tmp_path / "s").glob("*.parquet"))
