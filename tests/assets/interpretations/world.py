"""A small dataset and contexts artifact written to the contract, with units whose rule is known.

Words are single tokens with a leading space, as in the mini world; every unit fires by a planted rule.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORDS = [" Wait", " Hmm", " so", " the", " result", " is", " check", " add", " take", " that", " dial", " shows"]
DIGITS = [f" {digit}" for digit in range(10)]
VOCABULARY = [*WORDS, *DIGITS, " +", " -", " =", " .", " ,", "\n", "<|im_start|>", " <b>", " π"]
AROUND = 8

Rule = Callable[[list[str], int], float]
"""(texts of a rollout, position) -> activation."""


@dataclass
class World:
    """Rollouts of random tokens and the units that fire on them."""

    rollouts: list[list[int]]
    units: dict[str, Rule] = field(default_factory=dict)

    @property
    def texts(self) -> list[list[str]]:
        return [[VOCABULARY[token] for token in rollout] for rollout in self.rollouts]


def build_world(rollouts: int = 120, tokens: int = 60, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    weight = np.array([1.0] * len(WORDS) + [1.5] * 10 + [2.0] * 5 + [1.0] + [0.1] + [0.2, 0.2])
    draws = rng.choice(len(VOCABULARY), size=(rollouts, tokens), p=weight / weight.sum())
    return World([row.tolist() for row in draws])


def write_dataset(world: World, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows, texts = [], []
    for rollout, tokens in enumerate(world.rollouts):
        at = 0
        for position, token in enumerate(tokens):
            end = at + len(VOCABULARY[token])
            role = 0 if position < 5 else 1 if position < 15 else 2 if position < 45 else 3
            rows.append((rollout, position, token, at, end, role, role >= 2))
            at = end
        texts.append("".join(VOCABULARY[token] for token in tokens))
    names = ["rollout_id", "position", "token_id", "start", "end", "role", "loss"]
    types = [pa.int32(), pa.int32(), pa.int32(), pa.int32(), pa.int32(), pa.int8(), pa.bool_()]
    columns = [pa.array(column, type=kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    pq.write_table(pa.table(columns, names=names), folder / "tokens.parquet")
    table = {
        "rollout_id": pa.array(range(len(texts)), pa.int32()),
        "question": ["?"] * len(texts),
        "solution": ["!"] * len(texts),
        "text": texts,
        "n_tokens": pa.array([len(tokens) for tokens in world.rollouts], pa.int32()),
        "n_cut": pa.array([0] * len(texts), pa.int32()),
    }
    pq.write_table(pa.table(table), folder / "rollouts.parquet")
    return folder


def write_contexts(
    world: World, folder: Path, top: int = 64, quantile: int = 24, silent: int = 24, captured_from: int = 0
) -> Path:
    """Of every rollout, tokens from `captured_from` on were looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = world.texts
    unit_rows, context_rows = [], []
    for number, (unit, rule) in enumerate(world.units.items()):
        looked_at = [(r, p) for r, row in enumerate(texts) for p in range(captured_from, len(row))]
        values = [[rule(words, at) for at in range(len(words))] for words in texts]
        rng = np.random.default_rng(number)
        fired = [(values[r][p], r, p) for r, p in looked_at if values[r][p] > 0]
        quiet = [(0.0, r, p) for r, p in looked_at if values[r][p] <= 0]
        fired.sort(key=lambda each: (-each[0], each[1], each[2]))
        rest = fired[top:]
        spread = [rest[i] for i in np.linspace(0, len(rest) - 1, min(quantile, len(rest))).astype(int)] if rest else []
        still = [quiet[i] for i in rng.choice(len(quiet), min(silent, len(quiet)), replace=False)] if quiet else []
        samples = [("top", fired[:top]), ("quantile", spread), ("silent", still)]
        for sample, chosen in samples:
            for rank, (value, rollout, position) in enumerate(chosen):
                start = max(captured_from, position - AROUND)
                end = min(len(texts[rollout]), position + AROUND + 1)
                context_rows.append(
                    (unit, sample, rank, rollout, position, value, start, world.rollouts[rollout][start:end],
                     [max(0.0, v) for v in values[rollout][start:end]])
                )  # fmt: skip
        unit_rows.append(_unit_row(unit, len(looked_at), fired))
    _write(folder / "units.parquet", unit_rows, UNITS)
    _write(folder / "contexts.parquet", context_rows, CONTEXTS)
    return folder


UNITS = pa.schema(
    [
        ("unit", pa.string()), ("kind", pa.string()), ("layer", pa.int32()), ("projection", pa.string()),
        ("index", pa.int32()), ("polarity", pa.int32()), ("n_tokens", pa.int64()), ("n_fired", pa.int64()),
        ("density", pa.float64()), ("sum", pa.float64()), ("max", pa.float64()), ("histogram", pa.list_(pa.int64())),
    ]
)  # fmt: skip
CONTEXTS = pa.schema(
    [
        ("unit", pa.string()), ("sample", pa.string()), ("rank", pa.int32()), ("rollout_id", pa.int32()),
        ("position", pa.int32()), ("value", pa.float32()), ("start", pa.int32()),
        ("token_ids", pa.list_(pa.int32())), ("values", pa.list_(pa.float32())),
    ]
)  # fmt: skip


def _unit_row(unit: str, tokens: int, fired: list[tuple[float, int, int]]) -> tuple:
    kind = unit.split(":")[0]
    total, most = sum(v for v, _, _ in fired), fired[0][0] if fired else 0.0
    return (unit, kind, 0, "", 0, 1, tokens, len(fired), len(fired) / tokens, total, most, [0] * 20)


def _write(path: Path, rows: list[tuple], schema: pa.Schema) -> None:
    columns = [[row[place] for row in rows] for place in range(len(schema))]
    arrays = [pa.array(column, type=each.type) for column, each in zip(columns, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def jitter(words: list[str], at: int) -> float:
    """A strength in [1, 2) that depends on nothing a predicate can see."""
    return 1 + crc32(f"{at}{words}".encode()) / 2**32


def token_rule(word: str) -> Rule:
    """Fires on one token."""
    return lambda words, at: jitter(words, at) if words[at] == word else 0.0


def digit_rule(words: list[str], at: int) -> float:
    """Fires on every digit."""
    return jitter(words, at) if words[at].strip().isdigit() else 0.0


def noise_rule(share: float, seed: int) -> Rule:
    """Fires on random positions, whatever stands there."""

    def fires(words: list[str], at: int) -> float:
        draw = np.random.default_rng([seed, at, crc32("".join(words).encode())]).random()
        return 1 + draw if draw < share else 0.0

    return fires
