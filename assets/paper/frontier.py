"""Sparsity against what is left unexplained: the SAEs of a comparison, and which of them no other one beats."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resources.charts import ACCENT, CATEGORIES

if TYPE_CHECKING:
    import altair

_BEATEN = CATEGORIES[-1]
STATES = ("best at its L0", "beaten in both")
"""By whether another SAE that is measured on the same is as sparse and explains more."""


def frontier_chart(rows: Sequence[Mapping[str, Any]]) -> "altair.LayerChart | altair.FacetChart":
    """L0 against FVU, each SAE with its experiment's name; a line joins those of equal data that none beats."""
    import altair as alt

    values = alt.Data(values=[{**row, "state": STATES[row["dominated"]]} for row in rows])
    base = alt.Chart(values, title="SAEs: lower and further left is better", width=620, height=300).encode(
        alt.X("l0:Q", title="latents per token (L0, held out)", scale=alt.Scale(zero=False, padding=30)),
        alt.Y("fvu:Q", title="variance unexplained (FVU, held out)", scale=alt.Scale(zero=False, padding=20)),
    )
    states = alt.Scale(domain=list(STATES), range=[ACCENT, _BEATEN])
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        alt.Color("state:N", scale=states, title=None),
        alt.Shape("state:N", scale=alt.Scale(domain=list(STATES), range=["circle", "diamond"]), title=None),
        tooltip=["experiment:N", "k:Q", alt.Tooltip("l0:Q", format=".3g"), alt.Tooltip("fvu:Q", format=".3g")],
    )
    line = base.mark_line(color=ACCENT, opacity=0.5).transform_filter("!datum.dominated")
    line = line.encode(alt.Detail("measured_on:N"))
    names = base.mark_text(align="left", dx=8, dy=-6).encode(alt.Text("experiment:N"))
    return alt.layer(line, points, names)
