"""One picture of Tables 1 and 2: every arm's score with its interval, the paper's beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from assets.benchmarks.config import arm_title
from assets.benchmarks.published import TITLES, published
from resources.charts import ACCENT, CATEGORIES, save_chart

_PAPER = CATEGORIES[1]


def save_scores_chart(scores: Sequence[dict[str, Any]], out: Path) -> None:
    """`charts/scores.png` and its companions; arms whose score is withheld are left out."""
    rows = [_point(row) for row in scores if row["score"] is not None]
    if rows:
        save_chart(_chart(rows), out, "scores")


def _point(row: dict[str, Any]) -> dict[str, Any]:
    theirs = published(row["benchmark"], row["arm"])
    return {
        "benchmark": TITLES.get(row["benchmark"], row["benchmark"]),
        "arm": arm_title(row["arm"]),
        "score": row["score"],
        "low": row["ci_low"],
        "high": row["ci_high"],
        "paper": None if theirs is None else theirs.score,
    }


def _chart(rows: list[dict[str, Any]]) -> alt.TopLevelMixin:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    base = alt.Chart().encode(alt.Y("arm:N", sort=arms, title=None))
    theirs = any(row["paper"] is not None for row in rows)
    title = "score (95 % interval; diamond: paper)" if theirs else "score (95 % interval)"
    score = alt.X("score:Q", scale=alt.Scale(domain=[0, 1]), title=title)
    marks = [
        base.mark_rule(color=ACCENT).encode(alt.X("low:Q"), alt.X2("high:Q")),
        base.mark_point(color=ACCENT, filled=True, size=50).encode(score),
    ]
    if theirs:
        marks.append(base.mark_point(color=_PAPER, shape="diamond", size=60).encode(alt.X("paper:Q")))
    layers = alt.layer(*marks, data=alt.Data(values=rows))
    return layers.properties(width=360).facet(
        row=alt.Row("benchmark:N", title=None, sort=list(dict.fromkeys(row["benchmark"] for row in rows)))
    )
