"""One Vega-Lite specification per figure: interactive in the report, SVG and PNG for papers and the UI."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import altair

FOLDER = "charts"
"""Subfolder of an artifact; its PNGs are shown inline in the UI."""
ACCENT = "#2f6f9f"
COLOURS = 64
"""Of a chart's PNG: a palette and its blends at the edges of letters and lines."""
SCALE = 1.3
"""Of a PNG to its chart, at most 756 pixels wide: in a window of 1280, Dagster's dialog shows 984 and cuts the rest."""
SIGNED = ("#b2182b", "#f7f7f7", "#2166ac")
"""Negative, zero, positive: ColorBrewer RdBu, told apart by colour-blind readers."""
CATEGORIES = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
"""Paul Tol's bright qualitative scheme, safe for colour-blind readers."""


def png(chart: "altair.TopLevelMixin") -> bytes:
    """The chart as a small picture."""
    import vl_convert

    return _few_colours(vl_convert.vegalite_to_png(chart.to_json(indent=None)))


def save_chart(chart: "altair.TopLevelMixin", folder: Path, name: str) -> None:
    """Write `<name>.vl.json`, `.svg` and `.png` into `folder/charts`."""
    import vl_convert

    out = folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    specification = chart.to_json(indent=None)
    (out / f"{name}.vl.json").write_text(specification, encoding="utf-8")
    (out / f"{name}.svg").write_text(vl_convert.vegalite_to_svg(specification), encoding="utf-8")
    (out / f"{name}.png").write_bytes(_few_colours(vl_convert.vegalite_to_png(specification, scale=SCALE)))


def _few_colours(picture: bytes) -> bytes:
    """The same PNG with a palette, an eighth of the size: Dagster stores it with every materialization, hits too."""
    from PIL import Image

    small = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    return small.getvalue()


def line_chart(points: list[dict[str, float]], y: str, title: str) -> "altair.Chart":
    """A single curve over steps, such as a loss; `points` are rows with the columns `step` and `y`."""
    import altair

    return (
        altair.Chart(altair.Data(values=points), title=title, width=520, height=240)
        .mark_line(color=ACCENT)
        .encode(
            altair.X("step", type="quantitative"),
            altair.Y(y, type="quantitative", scale=altair.Scale(zero=False)),
            tooltip=[altair.Tooltip("step", type="quantitative"), altair.Tooltip(y, type="quantitative", format=".4f")],
        )
    )
