"""`lorascope compare a b`: gather what the store has of several experiments and lay it side by side."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from pydantic import JsonValue

from assets.paper.artifact import TABLES
from assets.paper.comparison import Comparison, Side, compare
from assets.paper.config import PAPER_REPORT
from assets.paper.frontier import frontier_chart
from dagster_project.experiment import Experiment, Experiments
from dagster_project.plan import keys
from resources.charts import FOLDER, save_chart
from resources.errors import BadInput
from resources.home import Home
from resources.store import Store

MOST = 20
"""Experiments side by side before a table stops being readable."""
READ = ("batchtopk_sae", "interpretations")
"""Artifacts that a comparison opens; of the others it reads the manifest."""


def compare_experiments(home: Home, names: Sequence[str]) -> Comparison:
    """Compare at least two experiments by name.

    Raises:
        BadInput: for fewer than 2 or more than 20, or when one is invalid or has nothing computed.
    """
    if not 2 <= len(set(names)) <= MOST:
        raise BadInput(f"compare takes 2 to {MOST} different experiments (given: {', '.join(names) or 'none'})")
    folder, store = Experiments(home.experiments), Store(home.store)
    return compare([_side(folder, folder.load(name), store) for name in dict.fromkeys(names)])


def computed_experiments(home: Home) -> list[str]:
    """Valid experiments that have at least one artifact of their own."""
    folder, store = Experiments(home.experiments), Store(home.store)
    return [name for name in folder.names() if _has_own(folder, store, _keys_of(folder, name), name)]


def _has_own(folder: Experiments, store: Store, found: Mapping[str, str], name: str) -> bool:
    """Whether anything is computed that its parent does not share; of all, where the two differ in nothing."""
    parent = folder.load(name).parent if found else None
    inherited = _keys_of(folder, parent) if parent else {}
    own = {asset: key for asset, key in found.items() if inherited.get(asset) != key} or found
    return any(store.peek(asset, key) for asset, key in own.items())


def _keys_of(folder: Experiments, name: str) -> dict[str, str]:
    """No keys where the file alone is invalid: a child may correct what its parent gets wrong."""
    try:
        return keys(folder.load(name))
    except BadInput:
        return {}


def _side(folder: Experiments, experiment: Experiment, store: Store) -> Side:
    found = keys(experiment)
    if not _has_own(folder, store, found, experiment.name):
        raise BadInput(f"nothing of '{experiment.name}' is computed yet: run `lorascope run {experiment.name}` first")
    peeked = {asset: store.peek(asset, key) for asset, key in found.items()}
    manifests = {asset: manifest for asset, manifest in peeked.items() if manifest is not None}
    sections = {name: experiment.values(name) for name in experiment.sections}
    whole = [manifests[asset] for asset in READ if asset in manifests and store.whole(asset, manifests[asset].key)]
    return Side(
        experiment.name, sections, manifests, {found.asset: store.folder(found.asset, found.key) for found in whole}
    )


def write_comparison(home: Home, names: Sequence[str], found: Comparison, left_out: Sequence[str] = ()) -> Path:
    """Write the page that shows a comparison, with each experiment's claims, and names what is left out of it."""
    from assets.paper.page import claims_side_by_side, render_comparison
    from assets.paper.tables import write_tables

    folder, store = Experiments(home.experiments), Store(home.store)
    claims: dict[str, list[dict[str, JsonValue]]] = {}
    reports: dict[str, str] = {}
    for name in names:
        manifest = store.peek(PAPER_REPORT.asset, keys(folder.load(name))[PAPER_REPORT.asset])
        if manifest is not None:
            claims[name] = manifest.rows("claims")
            reports[name] = f"../store/{manifest.asset}/{manifest.key}/index.html"
    page = home.comparison / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_comparison(names, found, claims, reports, left_out), encoding="utf-8")
    for name in (FOLDER, TABLES):
        shutil.rmtree(page.parent / name, ignore_errors=True)
    rows = {field.name: getattr(found, field.name) for field in fields(found)}
    write_tables({**rows, "claims": claims_side_by_side(names, claims)}, page.parent / TABLES)
    if found.frontier:
        save_chart(frontier_chart(found.frontier), page.parent, "frontier")
    return page
