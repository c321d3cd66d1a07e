"""Figures 1 and 2 name what they show: kinds of unit, classes, and each slice with room for its name."""

import re

from assets.categories.charts import class_chart, density_chart
from resources.units import Kind

DENSITIES = [
    {"kind": "latent", "category": "words", "subcategory": "capitalised_words", "share": 0.4},
    {"kind": "latent", "category": "words", "subcategory": "rare_words", "share": 0.02},
    {"kind": "latent", "category": "numbers", "subcategory": "digits", "share": 0.58},
]


KINDS: tuple[Kind, ...] = ("adapter", "latent")


def names(layer: dict) -> list[str]:
    """What a text layer writes, in the order of the slices."""
    rows = layer["data"]["values"]
    return [row[layer["encoding"]["text"]["field"]] for row in rows]


def test_the_outer_ring_names_large_slices_at_their_own_side() -> None:
    layers = density_chart(DENSITIES, "latent").to_dict()["layer"]
    texts = {layer["mark"].get("align"): names(layer) for layer in layers if layer["mark"]["type"] == "text"}
    # Middles of the slices at 0.2, 0.41 and 0.71 of the way round from the top, clockwise.
    assert texts["left"] == ["capitalised words", "", ""]
    assert texts["right"] == ["", "", "digits"]


def test_the_inner_ring_sums_its_entries_and_says_how_much() -> None:
    inner = density_chart(DENSITIES, "latent").to_dict()["layer"][0]
    assert [(row["category"], round(row["share"], 6)) for row in inner["data"]["values"]] == [
        ("words", 0.42),
        ("numbers", 0.58),
    ]
    assert [row["white"] + row["black"] for row in inner["data"]["values"]] == ["42%", "58%"]


def slices(categories: int) -> tuple[list[str], list[str]]:
    """Categories of the inner ring and the colours they get, by a taxonomy of so many."""
    rows = [
        {"kind": "latent", "category": f"c{n}", "subcategory": f"s{n}", "share": 1 / categories}
        for n in range(categories)
    ]
    scale = density_chart(rows, "latent").to_dict()["layer"][0]["encoding"]["color"]["scale"]
    return scale["domain"], scale["range"]


def test_no_two_of_the_nine_categories_that_the_prompt_allows_share_a_colour() -> None:
    names, colours = slices(9)
    assert len(set(colours)) == len(colours) == len(names) == 9


def test_a_category_has_the_same_colour_in_the_charts_of_all_kinds() -> None:
    others = [{**DENSITIES[0], "kind": "adapter", "category": name} for name in ("lines", "words", "+")]
    rows = [*others, *DENSITIES]
    scales = [density_chart(rows, kind).to_dict()["layer"][0]["encoding"]["color"]["scale"] for kind in KINDS]
    adapter, latent = (dict(zip(scale["domain"], scale["range"], strict=True)) for scale in scales)
    assert (list(adapter), list(latent)) == (["lines", "words", "+"], ["words", "numbers"])
    assert adapter["words"] == latent["words"]
    assert len({*adapter.values(), *latent.values()}) == 4


def test_a_category_beyond_the_ninth_never_looks_like_one_of_the_nine() -> None:
    names, colours = slices(12)
    assert len(colours) == len(names) == 12
    assert not set(colours[:9]) & set(colours[9:])


def test_the_legend_spells_out_names_of_four_words_without_outgrowing_dagsters_dialog() -> None:
    import vl_convert

    name = "discourse_connectives_and_transitions"
    rows = [{"kind": "latent", "category": f"{name}_{n}", "subcategory": "", "share": 1 / 9} for n in range(9)]
    svg = vl_convert.vegalite_to_svg(density_chart(rows, "latent").to_json())
    assert all(f"{name}_{n}".replace("_", " ") in svg for n in range(9))
    width = re.search(r'width="([\d.]+)"', svg)
    assert width is not None
    assert float(width[1]) <= 756


def test_classes_stand_in_the_papers_order_under_the_name_of_their_kind() -> None:
    row = {"kind": "adapter", "explainer": "statistical", "n": 1, "share": 0.5, "ci_low": 0.4, "ci_high": 0.6}
    chart = class_chart([{**row, "label": label} for label in (2, 0, 1)]).to_dict()
    assert chart["spec"]["layer"][0]["encoding"]["y"]["sort"] == [
        "monosemantic",
        "broad but consistent",
        "polysemantic",
    ]
    assert {value["of"] for value in chart["data"]["values"]} == {"adapter directions"}
    assert "statistical" in chart["title"]


def test_shares_stand_in_black_on_light_slices_and_in_white_on_dark_ones() -> None:
    rows = [{**DENSITIES[0], "category": f"c{i}", "subcategory": "s", "share": 0.1} for i in range(10)]
    layers = density_chart(rows, "latent").to_dict()["layer"]
    colours = layers[0]["encoding"]["color"]["scale"]["range"]
    written = {
        row["category"]: layer["mark"]["fill"]
        for layer in layers
        if layer["mark"]["type"] == "text" and "fill" in layer["mark"]
        for row in layer["data"]["values"]
        if row[layer["encoding"]["text"]["field"]]
    }
    assert set(written) == {row["category"] for row in rows}
    for row, colour in zip(rows, colours, strict=True):
        ink = 1.0 if written[row["category"]] == "white" else 0.0
        lightest, darkest = sorted((ink + 0.05, luminance(colour) + 0.05), reverse=True)
        assert lightest / darkest >= 4.5, colour  # WCAG 2, level AA


def luminance(colour: str) -> float:
    linear = [(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in linear]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
