"""Tables 1 and 2 as people read them: each of our scores with its interval, and the paper's number right beside it.

And how many problems and units stand behind the shares, and classes of two explainers crossed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from assets.benchmarks.config import arm_title
from assets.interpretations.artifact import CLASSES
from resources.units import SPOKEN

PAPER = "_paper"
"""Ending of the column with the published number (assets/benchmarks/tables.py)."""


def column_title(name: str) -> str:
    """How a page calls a column of a table."""
    return "recovered" if name == "recovery" else arm_title(name)


def twins(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns that hold the published number of another column."""
    return [name for name in rows[0] if name.endswith(PAPER)]


def value_and_interval(shown: str) -> tuple[str, str]:
    """`0.5 [0.3, 0.7]` -> `0.5` and `[0.3, 0.7]`."""
    value, bracket, rest = shown.partition(" [")
    return value, f"[{rest}" if bracket else ""


def published(column: str, value: float) -> str:
    """The paper's number in the digits of ours."""
    return f"{100 * value:.1f} %" if column == "recovery" else f"{value:.3f}"


def asked(scores: Sequence[Mapping[str, Any]]) -> str:
    """How many problems each benchmark has."""
    found = {str(row["benchmark"]): row["questions"] for row in scores}
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in found.items())


def labelled(classes: Sequence[Mapping[str, Any]]) -> str:
    """How many units of each kind have a class, by explainer where there are several."""
    several = len({row["explainer"] for row in classes}) > 1
    found: Counter[str] = Counter()
    for row in classes:
        found[SPOKEN[row["kind"]] + (f" by {row['explainer']}" if several else "")] += row["n"]
    return ", ".join(f"{name} {count:,}" for name, count in found.items())


def crossed(agreement: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Units by class: one row per class that the LLM gave, one column per class of the statistical explainer."""
    units = Counter({(row["llm"], row["statistical"]): row["units"] for row in agreement})
    columns = {**CLASSES, -1: "insufficient"}
    return [
        {"LLM": name, **{f"statistical: {other}": units[label, theirs] for theirs, other in columns.items()}}
        for label, name in CLASSES.items()
    ]


def upright(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row per benchmark and arm, narrow enough for any terminal: benchmark, arm, measured, paper."""
    found: list[dict[str, str]] = []
    for row in rows:
        name = str(row["benchmark"])
        for column in row:
            if column == "benchmark" or column.endswith(PAPER):
                continue
            theirs = row.get(column + PAPER)
            found.append(
                {
                    "benchmark": name,
                    "arm": column_title(column),
                    "measured": "–" if row[column] is None else str(row[column]),
                    "paper": "–" if theirs is None else published(column, theirs),
                }
            )
            name = ""
    return found
