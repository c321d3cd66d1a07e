"""Figures 1 and 2 as Vega-Lite: class shares per kind, and a two-ring donut of activation per category."""

from typing import Any

import altair as alt

from assets.interpretations.artifact import CLASSES
from resources.charts import CATEGORIES
from resources.units import SPOKEN, Kind

NAMED = 0.03
"""Least share of a slice that has room for its name."""
SLICES = ("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499")
"""Paul Tol's muted qualitative scheme, safe for colour-blind readers: nine, as many categories as the prompt allows."""
DARK = {"#332288", "#117733", "#882255", "#AA4499"}
"""Slices on which white can be read; on the others black."""
BEYOND = CATEGORIES[-1]
"""Grey, of every category that a model makes beyond the ninth."""
RADIUS = (60, 105, 145)
"""Pixels: hole, edge between the rings, outer edge."""


def class_chart(classes: list[dict[str, Any]]) -> alt.LayerChart | alt.FacetChart:
    """Bars of class shares with 95 % intervals, one panel per kind."""
    names = list(CLASSES.values())
    values = [row | {"class": CLASSES[row["label"]], "of": SPOKEN[row["kind"]]} for row in classes]
    base = alt.Chart(width=420, height=66).encode(alt.Y("class:N", sort=names, title=None))
    colours = alt.Color("class:N", scale=alt.Scale(domain=names, range=CATEGORIES[: len(names)]), legend=None)
    bars = base.mark_bar().encode(
        alt.X("share:Q", title="share of labelled units", axis=alt.Axis(format="%")),
        colours,
        tooltip=["of:N", "class:N", "n:Q", alt.Tooltip("share:Q", format=".1%")],
    )
    whiskers = base.mark_rule(strokeWidth=1.5).encode(alt.X("ci_low:Q"), alt.X2("ci_high:Q"))
    header = alt.Header(labelOrient="top", labelAnchor="start", labelFontWeight="bold", labelPadding=2)
    explainers = ", ".join(sorted({row["explainer"] for row in classes}))
    rows = alt.Row("of:N", title=None, sort=list(SPOKEN.values()), header=header)
    return alt.layer(bars, whiskers, data=alt.Data(values=values)).facet(
        row=rows, title=f"Classes (explainer: {explainers})", spacing=8
    )


def density_chart(rows: list[dict[str, Any]], kind: Kind) -> alt.LayerChart | alt.FacetChart:
    """Inner ring: categories; outer ring: their subcategories in the same order and colour, named if large.

    `rows` are those of all kinds: a category has the same colour in each of their charts.
    """
    categories = list(dict.fromkeys(row["category"] for row in rows))
    colour_of = dict(zip(categories, _colours(len(categories)), strict=True))
    densities = [row for row in rows if row["kind"] == kind]
    names = list(dict.fromkeys(row["category"] for row in densities))
    colours = alt.Color(
        "category:N",
        scale=alt.Scale(domain=names, range=[colour_of[name] for name in names]),
        sort=names,
        # four words, the most that the prompt allows, have about 40 letters
        legend=alt.Legend(
            orient="bottom", columns=3, labelLimit=230, title=None, labelExpr="replace(datum.label, /_/g, ' ')"
        ),
    )
    values = [row | {"order": place, **_name(densities, place)} for place, row in enumerate(densities)]
    inner = [
        {"category": name, "order": place, "share": sum(r["share"] for r in densities if r["category"] == name)}
        for place, name in enumerate(names)
    ]
    for row in inner:
        shown = f"{row['share']:.0%}" if row["share"] >= NAMED else ""
        row |= {"white": shown, "black": ""} if colour_of[row["category"]] in DARK else {"white": "", "black": shown}
    theta = alt.Theta("share:Q", stack=True)
    said = [alt.Tooltip("category:N"), alt.Tooltip("share:Q", format=".1%")]
    totals = alt.Chart(alt.Data(values=inner)).encode(theta, alt.Order("order:Q"), tooltip=said)
    entries = alt.Chart(alt.Data(values=values)).encode(
        theta, alt.Order("order:Q"), tooltip=[*said, alt.Tooltip("subcategory:N")]
    )
    hole, edge, outside = RADIUS
    layers = (
        totals.mark_arc(innerRadius=hole, outerRadius=edge, stroke="white").encode(colours),
        entries.mark_arc(innerRadius=edge, outerRadius=outside, stroke="white", opacity=0.7).encode(colours),
        *(
            totals.mark_text(radius=(hole + edge) / 2, fill=ink, fontWeight="bold").encode(alt.Text(f"{ink}:N"))
            for ink in ("white", "black")
        ),
        entries.mark_text(radius=outside + 10, align="left").encode(alt.Text("right:N")),
        entries.mark_text(radius=outside + 10, align="right").encode(alt.Text("left:N")),
    )
    return alt.layer(*layers, title=f"{SPOKEN[kind]}: share of activation", width=500, height=340)


def _colours(count: int) -> list[str]:
    return [*SLICES[:count], *[BEYOND] * (count - len(SLICES))]


def _name(densities: list[dict[str, Any]], place: int) -> dict[str, str]:
    """An entry's name, at the side of the donut on which the middle of its slice is."""
    share = densities[place]["share"]
    middle = sum(row["share"] for row in densities[:place]) + share / 2
    name = densities[place]["subcategory"].replace("_", " ") if share >= NAMED else ""
    return {"right": name, "left": ""} if middle < 0.5 else {"right": "", "left": name}
