"""Sparsity against what is left unexplained: the SAEs of a comparison, and which of them no other one beats."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resources.charts import ACCENT, CATEGORIES

if TYPE_CHECKING:
    import altair

_BEATEN = CATEGORIES[-1]
STATES = ("best at its L0", "beaten in both")
"""By whether another SAE that is measured on the same is as sparse and explains more."""

_WIDTH, _HEIGHT = 560, 260
"""Of the field in which the points lie, pixels."""
_LINE, _LETTER = 13, 7
"""Height of a name and width of one of its letters, at most."""


def frontier_chart(rows: Sequence[Mapping[str, Any]]) -> "altair.LayerChart | altair.FacetChart":
    """L0 against FVU, each SAE with its experiment's name; a line joins those of equal data that none beats."""
    import altair as alt

    lines = _lines(rows)
    above = 20 + _LINE * max(lines)
    values = alt.Data(
        values=[{**row, "state": STATES[row["dominated"]], "line": line} for row, line in zip(rows, lines, strict=True)]
    )
    base = alt.Chart(
        values, title="SAEs: lower and further left is better", width=_WIDTH + 60, height=_HEIGHT + 2 * above
    ).encode(
        alt.X("l0:Q", title="latents per token (L0, held out)", scale=alt.Scale(zero=False, nice=False, padding=30)),
        alt.Y(
            "fvu:Q",
            title="variance unexplained (FVU, held out)",
            scale=alt.Scale(zero=False, nice=False, padding=above),
        ),
    )
    states = alt.Scale(domain=list(STATES), range=[ACCENT, _BEATEN])
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        alt.Color("state:N", scale=states, title=None),
        alt.Shape("state:N", scale=alt.Scale(domain=list(STATES), range=["circle", "diamond"]), title=None),
        tooltip=["experiment:N", "k:Q", alt.Tooltip("l0:Q", format=".3g"), alt.Tooltip("fvu:Q", format=".3g")],
    )
    line = base.mark_line(color=ACCENT, opacity=0.5).transform_filter("!datum.dominated")
    line = line.encode(alt.Detail("measured_on:N"))
    height = alt.ExprRef(f"-6 - {_LINE} * datum.line")
    names = base.mark_text(align="left", dx=8, dy=height).encode(alt.Text("experiment:N"))
    return alt.layer(line, points, names)


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """By how many lines each name stands above its point, so that none lies on another: seeds hardly differ."""
    placed: list[tuple[float, float, int]] = []
    lines: list[int] = []
    across = _pixels([row["l0"] for row in rows], _WIDTH)
    up = _pixels([row["fvu"] for row in rows], _HEIGHT)
    for row, x, y in zip(rows, across, up, strict=True):
        width, line = _LETTER * len(row["experiment"]), 0
        while any(abs(y + _LINE * line - b) < _LINE and x < a + w and a < x + width for a, b, w in placed):
            line += 1
        placed.append((x, y + _LINE * line, width))
        lines.append(line)
    return lines


def _pixels(values: Sequence[float], size: int) -> list[float]:
    least, most = min(values), max(values)
    return [size * (value - least) / ((most - least) or 1.0) for value in values]
