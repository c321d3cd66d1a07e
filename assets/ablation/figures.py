"""Figure 3 of the paper (a: layers, b: layer x projection), projection means, interactions, and the dose curves."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import altair as alt

from resources.charts import ACCENT, SIGNED, save_chart
from resources.components import PROJECTIONS
from resources.intervals import Ratio, ratio_interval

DIRECTIONS = ("unit", "random")
CONTRAST = "#d95f02"
"""Stands out against the accent for colour-blind readers too (ColorBrewer Dark2)."""
_SHOWN = ("value", "low", "high")
KL = "KL to the full adapter (nats per token)"


def save_ablation_figures(rows: Sequence[dict], interactions: Sequence[dict], out: Path) -> None:
    """Draw what the table holds; a figure without rows is left out."""
    groups = [dict(row) for row in interactions if row["unit_kind"] != "layer"]
    charts = (
        ("figure_3a_layers", layer_bars, _of(rows, "layer")),
        ("figure_3b_components", component_heatmap, _of(rows, "component")),
        ("projection_means", projection_bars, _of(rows, "component")),
        ("interactions", interaction_bars, groups),
        ("cumulative", cumulative_curve, _of(rows, "greedy")),
    )
    for name, draw, shown in charts:
        if shown:
            save_chart(draw(shown), out, name)


def layer_bars(rows: Sequence[dict]) -> alt.TopLevelMixin:
    """Figure 3a: KL of each layer, with one standard error."""
    values = [
        {
            "layer": row["layer"],
            "kl": row["kl_mean"],
            "low": row["kl_mean"] - (row["kl_sem"] or 0),
            "high": row["kl_mean"] + (row["kl_sem"] or 0),
            "ce": row["ce_delta"],
        }
        for row in rows
    ]
    base = alt.Chart(alt.Data(values=values), title="Ablating one layer's adapter", width=620, height=240).encode(
        alt.X("layer:O", title="layer"),
        tooltip=["layer:O", alt.Tooltip("kl:Q", format=".3g"), alt.Tooltip("ce:Q", format=".3g")],
    )
    bars = base.mark_bar(color=ACCENT).encode(alt.Y("kl:Q", title=KL))
    return bars + base.mark_rule(color="#333").encode(alt.Y("low:Q"), alt.Y2("high:Q"))


def component_heatmap(rows: Sequence[dict]) -> alt.Chart:
    """Figure 3b: KL of each component, layer by projection."""
    values = [{"layer": row["layer"], "projection": row["projection"], "kl": row["kl_mean"]} for row in rows]
    return (
        alt.Chart(alt.Data(values=values), title="Ablating one component", width=620, height=170)
        .mark_rect()
        .encode(
            alt.X("layer:O", title="layer"),
            alt.Y("projection:N", title=None, sort=list(PROJECTIONS)),
            alt.Color("kl:Q", title="KL", scale=alt.Scale(scheme="viridis")),
            tooltip=["layer:O", "projection:N", alt.Tooltip("kl:Q", format=".3g")],
        )
    )


def projection_bars(rows: Sequence[dict]) -> alt.Chart:
    """Mean over layers of the single components' KL, per projection."""
    found = {p: [row["kl_mean"] for row in rows if row["projection"] == p] for p in PROJECTIONS}
    values = [{"projection": p, "kl": fmean(kls)} for p, kls in found.items() if kls]
    return (
        alt.Chart(alt.Data(values=values), title="Mean over layers of single ablations", width=320, height=220)
        .mark_bar(color=ACCENT)
        .encode(
            alt.X("projection:N", title=None, sort=list(PROJECTIONS)),
            alt.Y("kl:Q", title=KL),
            tooltip=["projection:N", alt.Tooltip("kl:Q", format=".3g")],
        )
    )


def interaction_bars(rows: Sequence[dict]) -> alt.Chart:
    """KL of a group minus the sum over its components ablated alone."""
    most = max((abs(row["interaction"]) for row in rows), default=0.0) or 1.0
    scale = alt.Scale(range=list(SIGNED), domain=[-most, 0, most])  # where all have one sign Vega finds no middle
    return (
        alt.Chart(alt.Data(values=list(rows)), title="Together against the sum of the parts", width=460)
        .mark_bar(stroke="#888", strokeWidth=0.5)
        .encode(
            alt.X("interaction:Q", title="interaction (nats per token)"),
            alt.Y("unit:N", title=None, sort=None),
            alt.Color("interaction:Q", title=None, legend=None, scale=scale),
            tooltip=["unit:N", *[alt.Tooltip(f"{c}:Q", format=".3g") for c in ("kl_mean", "kl_sum_of_parts")]],
        )
    )


def cumulative_curve(rows: Sequence[dict]) -> alt.Chart:
    """KL along the greedy order."""
    values = [{"step": row["step"], "added": row["unit"], "kl": row["kl_mean"]} for row in rows]
    # Of few steps Vega draws half ones too, whatever tickMinStep says.
    steps = alt.Axis(labelExpr="datum.value % 1 ? '' : datum.value", grid=False)
    return (
        alt.Chart(alt.Data(values=values), title="Cumulative ablation, worst first", width=520, height=240)
        .mark_line(color=ACCENT, point=True)
        .encode(
            alt.X("step:Q", scale=alt.Scale(zero=False), axis=steps),
            alt.Y("kl:Q", title=KL),
            tooltip=["step:Q", "added:N", "kl:Q"],
        )
    )


DOSE_MEASURES = {
    "kl_mean": KL,
    "backtracking": "backtracking words per 100 tokens",
    "length": "new tokens",
    "accuracy": "problems solved",
}
"""Column -> title; all but the KL are of continuations."""

DOSES = {"add": "dose, x 99th percentile", "scale": "factor on the activation"}
"""What the axis shows, by `steering.mode`."""


def save_dose_figures(rows: Sequence[dict], mode: str, out: Path) -> None:
    """One chart per steered unit: each measure against the dose, unit against its random control."""
    for unit in dict.fromkeys(row["unit"] for row in rows):
        mine = [row for row in rows if row["unit"] == unit]
        save_chart(dose_chart(unit, mine, DOSES[mode]), out, f"dose_{slug(unit)}")


def slug(unit: str) -> str:
    """`adapter:L3.down_proj:+` as part of a file name: adapter_L3_down_proj_positive."""
    return re.sub(r"\W+", "_", unit.replace(":+", ":positive").replace(":-", ":negative"))


def dose_chart(unit: str, rows: Sequence[dict], axis: str) -> alt.VConcatChart:
    """A row per measure, a column per decoding; the unit and its random control are told apart by colour and dash."""
    panels = [alt.hconcat(*_dose_panels(rows, axis, column)) for column in DOSE_MEASURES]
    return alt.vconcat(*[panel for panel in panels if panel.hconcat], title=unit)


def _dose_panels(rows: Sequence[dict], axis: str, column: str) -> Sequence[alt.LayerChart | alt.FacetChart]:
    """One panel per decoding of a measure of continuations, one panel in all for the KL, which has none."""
    title = DOSE_MEASURES[column]
    found = [row for row in rows if row[column] is not None]
    top = max((_dose(row, column)["high"] for row in found), default=0.0)
    if column == "kl_mean":
        panels = {title: found}
    else:
        panels = {f"{title}, {name}": [r for r in found if r["decoding"] == name] for name in ("greedy", "sampled")}
    return [_dose_panel(mine, axis, column, name, top) for name, mine in panels.items() if mine]


def _dose(row: dict, column: str) -> dict[str, float]:
    """A curve point; rows repeat the KL per decoding, and a repeated point draws as one."""
    if column == "kl_mean":
        low, high = ratio_interval(Ratio(row["kl_mean"], row["kl_sem"]), row["n_rollouts"])
    else:
        low, high = row[f"{column}_low"], row[f"{column}_high"]
    value = row[column]
    bounds = {"low": value if low is None else low, "high": value if high is None else high}
    return {"factor": row["factor"], "value": value, **bounds}


def _dose_panel(
    rows: Sequence[dict], axis: str, column: str, title: str, top: float
) -> alt.LayerChart | alt.FacetChart:
    values = [_dose(row, column) | {"direction": row["direction"]} for row in rows]
    factors = sorted({row["factor"] for row in rows})
    shown = [direction for direction in DIRECTIONS if any(row["direction"] == direction for row in rows)]
    colours = alt.Scale(domain=shown, range=(ACCENT, CONTRAST)[: len(shown)])
    dashes = alt.Scale(domain=shown, range=[[1, 0], [4, 3]][: len(shown)])
    legend = alt.Undefined if len(shown) > 1 else None
    base = alt.Chart(alt.Data(values=values), width=300, height=150, title=title).encode(
        alt.X(
            "factor:Q",
            title=axis,
            scale=alt.Scale(type="symlog"),
            axis=alt.Axis(values=factors, labelExpr="datum.value"),
        ),
        alt.Color("direction:N", title=None, scale=colours, legend=legend),
        tooltip=["direction:N", "factor:Q", *[alt.Tooltip(f"{name}:Q", format=".3g") for name in _SHOWN]],
    )
    dash = alt.StrokeDash("direction:N", title=None, scale=dashes, legend=legend)
    lines = base.mark_line(point=True).encode(_measure_axis(column, top), dash)
    return lines + base.mark_area(opacity=0.15).encode(alt.Y("low:Q"), alt.Y2("high:Q"))


def _measure_axis(column: str, top: float) -> alt.Y:
    if column != "kl_mean":
        return alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, top]))
    # A KL of 0.01 nats at one dose and 10 at the next: only a logarithm shows both.
    axis = alt.Axis(values=[0, 0.01, 0.1, 1, 10], labelExpr="datum.value", labelOverlap=False)
    return alt.Y("value:Q", title=None, scale=alt.Scale(type="symlog", constant=0.01), axis=axis)


def _of(rows: Sequence[dict], kind: str) -> list[dict]:
    return [row for row in rows if row["unit_kind"] == kind]
