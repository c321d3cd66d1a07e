"""Figures 1 and 2 as Vega-Lite: class shares per kind, and a two-ring donut of activation per category."""

from typing import TYPE_CHECKING, Any

from assets.interpretations.artifact import CLASSES
from resources.charts import CATEGORIES

if TYPE_CHECKING:
    import altair

RADIUS = (70, 120, 165)
"""Pixels: hole, edge between the rings, outer edge."""


def class_chart(classes: list[dict[str, Any]]) -> "altair.LayerChart | altair.FacetChart":
    """Bars of class shares with 95 % intervals, one panel per kind."""
    import altair as alt

    values = [row | {"class": CLASSES[row["label"]]} for row in classes]
    base = alt.Chart(width=150, height=220).encode(alt.X("class:N", sort=list(CLASSES.values()), title=None))
    bars = base.mark_bar(color=CATEGORIES[0]).encode(
        alt.Y("share:Q", title="share of labelled units", axis=alt.Axis(format="%")),
        tooltip=["kind:N", "class:N", "n:Q", alt.Tooltip("share:Q", format=".1%")],
    )
    whiskers = base.mark_rule(strokeWidth=1.5).encode(alt.Y("ci_low:Q"), alt.Y2("ci_high:Q"))
    explainers = ", ".join(sorted({row["explainer"] for row in classes}))
    return alt.layer(bars, whiskers, data=alt.Data(values=values)).facet(
        alt.Facet("kind:N", title=f"classes by {explainers}"), columns=3
    )


def density_chart(densities: list[dict[str, Any]], kind: str) -> "altair.LayerChart | altair.FacetChart":
    """Inner ring: categories; outer ring: their subcategories in the same order and colour."""
    import altair as alt

    names = list(dict.fromkeys(row["category"] for row in densities))
    colours = alt.Color("category:N", scale=alt.Scale(domain=names, range=list(CATEGORIES)), sort=names)
    values = [row | {"order": place} for place, row in enumerate(densities)]
    inner = [
        {"category": name, "order": place, "share": sum(r["share"] for r in densities if r["category"] == name)}
        for place, name in enumerate(names)
    ]
    theta = alt.Theta("share:Q", stack=True)
    shown = [alt.Tooltip("category:N"), alt.Tooltip("share:Q", format=".1%")]
    first = alt.Chart(alt.Data(values=inner)).mark_arc(
        innerRadius=RADIUS[0], outerRadius=RADIUS[1], stroke="white"
    ).encode(theta, colours, alt.Order("order:Q"), tooltip=shown)  # fmt: skip
    second = alt.Chart(alt.Data(values=values)).mark_arc(
        innerRadius=RADIUS[1], outerRadius=RADIUS[2], stroke="white", opacity=0.7
    ).encode(theta, colours, alt.Order("order:Q"), tooltip=[*shown, alt.Tooltip("subcategory:N")])  # fmt: skip
    return alt.layer(first, second, title=f"share of {kind} activation per category", width=360, height=360)
