"""A small artifact set for the dashboard's tests: hostile text, every kind of unit, values by plain definition."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resources.components import components
from resources.units import Unit
from tests.shard_builders import build_shards

TEXTS = {
    3: "<|im_start|>user\n数学 is 楽しい 😀🧮 <img src=x onerror=alert(1)>\n</script><script>alert(2)</script>",
    7: "Wait, \u202eevil\u202c nul \u0000 and \u2066isolate\u2069 עברית \u2028 line & <b>bold</b> é"
    "\u061c\u0085\u200b\ufeff",
    9: "plain words only. " * 12,
}
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script>\u202e\u0000 数学"
LAYERS, NEURONS, LATENTS, WINDOW, TOP, SILENT = 2, 3, 40, 10, 20, 4
THRESHOLDS = {"adapter": 1.0, "neuron": 1.0, "latent": 4.0}
"""Kind -> what its units fire above; scalars have a deviation of 1."""
ASSETS = ("s1k_dataset", "activation_shards", "neuron_shards", "batchtopk_sae", "max_activating_contexts")


@dataclass(frozen=True)
class Built:
    """Folders by asset name, and what was put into them."""

    folders: Mapping[str, Path]
    units: list[dict]
    contexts: list[dict]
    values: Mapping[str, Mapping[int, np.ndarray]]
    """Unit -> rollout -> signed activation of every token."""


def build_artifacts(folder: Path) -> Built:
    """Everything that the dashboard reads, except model and adapter."""
    random = np.random.default_rng(0)
    folders = {name: folder / name for name in ASSETS}
    tokens = {r: np.frombuffer(text.encode(), np.uint8).astype(np.int32) for r, text in TEXTS.items()}
    write_dataset(folders["s1k_dataset"], TEXTS, tokens)
    columns = tuple(component.id for component in components(LAYERS))
    neurons = tuple(f"L{layer}.{i}" for layer in range(LAYERS) for i in range(NEURONS))
    states = {r: random.normal(size=(len(ids), len(columns))).astype(np.float16) for r, ids in tokens.items()}
    outputs = {r: random.normal(size=(len(ids), len(neurons))).astype(np.float16) for r, ids in tokens.items()}
    build_shards(folders["activation_shards"], states, columns, tokens, rollouts_per_shard=2)
    build_shards(folders["neuron_shards"], outputs, neurons, tokens, rollouts_per_shard=2)
    latents = _write_sae(folders["batchtopk_sae"], columns, states)
    values: dict[str, dict[int, np.ndarray]] = {}
    named = [(f"adapter:{name}", states, i) for i, name in enumerate(columns)]
    named += [(f"neuron:{name}", outputs, i) for i, name in enumerate(neurons)]
    for name, source, column in named:
        signed = {r: source[r][:, column].astype(np.float32) for r in source}
        values |= {f"{name}:+": signed, f"{name}:-": signed}
    values |= {f"latent:{i}": {r: latents[r][:, i] for r in latents} for i in range(LATENTS)}
    units, contexts = _contexts(values)
    _write_contexts(folders["max_activating_contexts"], units, contexts)
    return Built({**folders, **_write_said(folder, units)}, units, contexts, values)


def write_dataset(folder: Path, texts: Mapping[int, str], tokens: Mapping[int, np.ndarray]) -> None:
    """One token per byte; a character belongs to the token of its last byte."""
    from assets.dataset.artifact import ROLLOUT_SCHEMA, ROLLOUTS, TOKEN_SCHEMA, TOKENS

    folder.mkdir(parents=True)
    rollouts, rows = [], []
    for r, text in texts.items():
        ids = tokens[r].tolist()
        kept = {"rollout_id": r, "question": "q", "solution": "", "text": text, "n_tokens": len(ids), "n_cut": 0}
        rollouts.append(kept)
        spans = [span for i, c in enumerate(text) for span in [*[(i, i)] * (len(c.encode()) - 1), (i, i + 1)]]
        for position, (token, (start, end)) in enumerate(zip(ids, spans, strict=True)):
            place = {"rollout_id": r, "position": position, "token_id": token, "start": start, "end": end}
            rows.append({**place, "role": 1 if position < 20 else 2, "loss": position >= 20})
    pq.write_table(pa.Table.from_pylist(rollouts, schema=ROLLOUT_SCHEMA), folder / ROLLOUTS)
    pq.write_table(pa.Table.from_pylist(rows, schema=TOKEN_SCHEMA), folder / TOKENS)


def _write_sae(folder: Path, columns: tuple[str, ...], states: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """An SAE, and the activation of each latent at every token; latent 39 is dead."""
    import torch

    from assets.sae.artifact import Sae, write_sae

    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(len(columns), LATENTS, generator=generator)
    threshold = torch.full((LATENTS,), THRESHOLDS["latent"])
    threshold[39] = 1e9
    bias = torch.zeros(LATENTS)
    sae = Sae(
        folder, columns, 2, THRESHOLDS["latent"], weights, bias, weights.T.contiguous(), torch.zeros(len(columns)),
        threshold,
    )  # fmt: skip
    folder.mkdir(parents=True)
    write_sae(folder, sae, {})
    found = {}
    for r, state in states.items():
        value = torch.from_numpy(state.astype(np.float32)) @ weights
        found[r] = torch.where(value > threshold, value, 0.0).numpy()
    return found


def _contexts(values: Mapping[str, Mapping[int, np.ndarray]]) -> tuple[list[dict], list[dict]]:
    """Units and contexts by plain definition: sort every firing token, cut a window."""
    from resources.units import parse_unit

    units, contexts = [], []
    for name, rollouts in values.items():
        unit = parse_unit(name)
        signed = {r: value * unit.polarity for r, value in rollouts.items()}
        own = {r: np.where(value > THRESHOLDS[unit.kind], value, 0) for r, value in signed.items()}
        flat = [(float(v), r, p) for r, value in own.items() for p, v in enumerate(value)]
        fired = sorted(((v, r, p) for v, r, p in flat if v > 0), key=lambda one: (-one[0], one[1], one[2]))
        units.append(_unit_row(unit, [v for v, _, _ in fired], len(flat)))
        silent = [one for one in flat if one[0] == 0][:SILENT]
        for sample, found in (("top", fired[:TOP]), ("silent", silent)):
            for rank, (value, r, position) in enumerate(found):
                start = max(0, position - WINDOW)
                window = own[r][start : position + WINDOW + 1].tolist()
                row = {"unit": name, "sample": sample, "rank": rank, "rollout_id": r, "position": position}
                contexts.append({**row, "value": value, "start": start, "token_ids": [], "values": window})
    return units, contexts


def _unit_row(unit: Unit, fired: list[float], total: int) -> dict:
    largest = max(fired, default=0.0)
    histogram = np.histogram(fired, 20, (0, largest or 1))[0].tolist()
    return {
        "unit": unit.id, "kind": unit.kind, "layer": unit.layer, "projection": unit.projection, "index": unit.index,
        "polarity": unit.polarity, "threshold": THRESHOLDS[unit.kind], "n_tokens": total, "n_fired": len(fired),
        "density": len(fired) / total, "sum": sum(fired), "max": largest, "histogram": histogram,
    }  # fmt: skip


def _write_contexts(folder: Path, units: list[dict], contexts: list[dict]) -> None:
    from assets.contexts.artifact import CONTEXTS, CONTEXTS_FILE, UNITS, UNITS_FILE

    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(units, schema=UNITS), folder / UNITS_FILE)
    pq.write_table(pa.Table.from_pylist(contexts, schema=CONTEXTS), folder / CONTEXTS_FILE, row_group_size=100)


def _write_said(folder: Path, units: list[dict]) -> dict[str, Path]:
    """Explanations, scores and categories; the first unit's explanation is hostile."""
    from assets.categories.artifact import CATEGORIES_FILE
    from assets.interpretations.artifact import (
        INTERPRETATIONS_FILE,
        INTERPRETATIONS_SCHEMA,
        SCORES_FILE,
        SCORES_SCHEMA,
    )

    said, scores, filed = [], [], []
    for i, unit in enumerate(units):
        base = {"unit": unit["unit"], "kind": unit["kind"]}
        text = HOSTILE if i == 0 else f"token {chr(97 + i % 26)}, number {i % 10}"
        ok = {"explainer": "statistical", "explanation": text, "label": i % 3, "status": "ok", "reasoning": HOSTILE}
        said.append(base | ok)
        score = {"explainer": "statistical", "method": "detection", "judge": "statistical", "status": "ok"}
        score |= {"sensitivity_typical": None if i else 0.25}
        scores.append(base | score | {"balanced_accuracy": 0.5 + (i * 37 % 50) / 100, "ci_low": 0.5, "ci_high": 1.0})
        if i == 4:
            others = (("fuzzing", 0.625), ("intruder", 0.25))
            scores += [base | score | {"method": method, "balanced_accuracy": value} for method, value in others]
        filed.append(base | {"string_id": "1.1", "category": f"category {i % 4}", "subcategory": "entry\u202e"})
    folders = {name: folder / name for name in ("interpretations", "interpretation_scores", "feature_categories")}
    tables = (
        pa.Table.from_pylist(said, schema=INTERPRETATIONS_SCHEMA),
        pa.Table.from_pylist(scores, schema=SCORES_SCHEMA),
        pa.Table.from_pylist(filed),
    )
    names = (INTERPRETATIONS_FILE, SCORES_FILE, CATEGORIES_FILE)
    for place, name, table in zip(folders.values(), names, tables, strict=True):
        place.mkdir(parents=True)
        pq.write_table(table, place / name)
    return folders
