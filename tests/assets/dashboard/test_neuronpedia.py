"""The export in Neuronpedia's format: against its table definitions, and against the artifacts' values."""

import gzip
import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from assets.contexts.artifact import CONTEXTS_FILE
from assets.dashboard.config import DashboardConfig
from assets.dashboard.neuronpedia import Artifacts, export
from assets.dataset.config import DatasetConfig
from resources.models import ModelConfig
from tests.assets.dashboard.conftest import Site
from tests.dashboard_builders import HOSTILE, TEXTS

# `schema.prisma` of neuronpedia 008d5040: columns without a default and not nullable, and all columns.
REQUIRED = {
    "model": {"id", "creatorId", "layers", "neuronsPerLayer", "owner"},
    "release": {"name", "description", "creatorName", "creatorId"},
    "sourceset": {"modelId", "name", "description", "creatorName", "creatorId"},
    "source": {"id", "modelId", "setName", "creatorId"},
    "features": {"modelId", "layer", "index"},
    "explanations": {"modelId", "layer", "index", "description", "authorId"},
    "activations": {"index", "layer", "modelId", "maxValue", "maxValueTokenIndex", "minValue", "creatorId"},
}
KNOWN = {
    "model": REQUIRED["model"] | {"displayNameShort", "displayName", "visibility", "instruct"},
    "release": REQUIRED["release"] | {"visibility", "urls"},
    "sourceset": REQUIRED["sourceset"] | {"visibility", "type", "urls", "releaseName"},
    "source": REQUIRED["source"] | {"visibility", "num_prompts", "dataset"},
    "features": REQUIRED["features"]
    | {"sourceSetName", "creatorId", "maxActApprox", "frac_nonzero", "vectorLabel", "pos_str", "pos_values"}
    | {"neg_str", "neg_values", "freq_hist_data_bar_heights", "freq_hist_data_bar_values"},
    "explanations": REQUIRED["explanations"] | {"id", "typeName", "explanationModelName", "notes"},
    "activations": REQUIRED["activations"]
    | {"id", "tokens", "values", "dataIndex", "dataSource", "binMin", "binMax", "binContains", "qualifyingTokenIndex"},
}


@pytest.fixture(scope="module")
def exported(site: Site, tiny_model: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = {**site.built.folders, "lora_checkpoint": tiny_adapter}
    return export_site(folders, site.config, tiny_model, tmp_path_factory.mktemp("neuronpedia"))


def export_site(folders: dict[str, Path], config: DashboardConfig, model: Path, out: Path) -> list[Path]:
    artifacts = Artifacts(**{field.name: folders[field.name] for field in fields(Artifacts)})
    corpus = DatasetConfig(source="someone/traces", revision="a" * 40)
    return export(ModelConfig(name=str(model)), corpus, config, artifacts, out)


def rows(folder: Path, table: str) -> list[dict]:
    single = folder / f"{table}.jsonl"
    if single.exists():
        return [json.loads(line) for line in single.read_text().splitlines()]
    paths = sorted((folder / table).glob("batch-*.jsonl.gz"))
    # Not splitlines: a token may be U+2028, which Python takes for the end of a line.
    return [
        json.loads(line) for path in paths for line in gzip.decompress(path.read_bytes()).decode().split("\n") if line
    ]


@pytest.mark.parametrize("table", sorted(REQUIRED))
def test_rows_have_what_neuronpedia_demands_and_nothing_it_does_not_know(exported: list[Path], table: str) -> None:
    for folder in exported:
        found = rows(folder, table)
        assert found
        for row in found:
            assert REQUIRED[table] <= set(row) <= KNOWN[table]
            assert "\0" not in json.dumps(row, ensure_ascii=False)
            assert "\\u0000" not in json.dumps(row)


def test_every_kind_is_a_source_that_its_rows_point_to(exported: list[Path], site: Site) -> None:
    assert [folder.name for folder in exported] == ["0-lorascope-adapter", "0-lorascope-neuron", "0-lorascope-latent"]
    for folder in exported:
        (source,), (model,), (group,) = rows(folder, "source"), rows(folder, "model"), rows(folder, "sourceset")
        assert (folder.name, folder.parent.name) == (source["id"], model["id"])
        assert source["setName"] == group["name"]
        assert source["dataset"] == "someone/traces"
        features = rows(folder, "features")
        assert [row["index"] for row in features] == [str(i) for i in range(len(features))]
        for table in ("features", "explanations", "activations"):
            assert {(row["modelId"], row["layer"]) for row in rows(folder, table)} == {(model["id"], source["id"])}
    assert sum(len(rows(folder, "features")) for folder in exported) == len(site.built.units)


def test_a_source_counts_the_rollouts_that_were_looked_at_not_those_that_are_shown(
    site: Site, tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    contexts = tmp_path / "contexts"
    shutil.copytree(site.built.folders["max_activating_contexts"], contexts)
    shown = pq.read_table(contexts / CONTEXTS_FILE, filters=[("rollout_id", "=", min(TEXTS))])
    pq.write_table(shown, contexts / CONTEXTS_FILE)
    folders = {**site.built.folders, "lora_checkpoint": tiny_adapter, "max_activating_contexts": contexts}
    for folder in export_site(folders, site.config, tiny_model, tmp_path / "out"):
        assert [row["num_prompts"] for row in rows(folder, "source")] == [len(TEXTS)]


def test_an_export_into_a_folder_that_holds_a_larger_one_leaves_none_of_its_units(
    exported: list[Path], site: Site, tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    for folder in exported:
        earlier = shutil.copytree(folder, tmp_path / folder.parent.name / folder.name)
        for table in ("features", "explanations", "activations"):
            shutil.copy(earlier / table / "batch-0.jsonl.gz", earlier / table / "batch-1.jsonl.gz")
    again = export_site({**site.built.folders, "lora_checkpoint": tiny_adapter}, site.config, tiny_model, tmp_path)
    assert [len(rows(folder, "features")) for folder in again] == [len(rows(folder, "features")) for folder in exported]
    assert [path.name for path in tmp_path.rglob("batch-1*")] == []


def test_features_carry_their_units_numbers(exported: list[Path], site: Site) -> None:
    by_unit = {unit["unit"]: unit for unit in site.built.units}
    for row in rows(exported[2], "features"):
        unit = by_unit[row["vectorLabel"]]
        assert row["frac_nonzero"] == unit["density"]
        assert row["maxActApprox"] == pytest.approx(unit["max"], rel=1e-6)
        assert row["freq_hist_data_bar_heights"] == unit["histogram"]
        assert row["pos_values"] == sorted(row["pos_values"], reverse=True)
        assert len(row["pos_str"]) == len(row["pos_values"]) == site.config.logit_tokens


def test_activations_are_the_contexts_with_a_token_for_each_value(exported: list[Path], site: Site) -> None:
    unit = "latent:3"
    index = next(row["index"] for row in rows(exported[2], "features") if row["vectorLabel"] == unit)
    found = [row for row in rows(exported[2], "activations") if row["index"] == index]
    top = [row for row in site.built.contexts if row["unit"] == unit and row["sample"] == "top"]
    largest = next(one for one in site.built.units if one["unit"] == unit)
    for row, wanted in zip(found, top, strict=False):
        assert row["dataIndex"] == f"{wanted['rollout_id']}:{wanted['start']}"
        assert len(row["tokens"]) == len(row["values"])
        assert row["values"] == pytest.approx(wanted["values"], rel=1e-3)
        assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"] == max(row["values"])
        assert row["qualifyingTokenIndex"] == wanted["position"] - wanted["start"]
        assert row["binMin"] - 1e-6 <= wanted["value"] <= row["binMax"] + 1e-6
        assert row["binContains"] > 0
    assert len(found) == site.config.top_contexts
    assert sum(largest["histogram"]) == largest["n_fired"]
    ids = [row["id"] for folder in exported for row in rows(folder, "activations")]
    assert len(set(ids)) == len(ids)


def test_hostile_text_survives_but_for_nul(exported: list[Path]) -> None:
    said = rows(exported[0], "explanations")
    assert said[0]["description"] == HOSTILE.replace("\0", "\ufffd")
    assert np.isfinite([row["binContains"] for row in rows(exported[0], "activations")]).all()
