"""The report as a page: charts draw from file://, text stays text, both widths and themes read, on paper too."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from playwright.sync_api import Browser

from assets.paper.captions import Figure
from assets.paper.claims import CLAIMS, Measurement
from assets.paper.page import (
    SITE,
    VERDICTS,
    _agreed,
    _measured,
    _visible,
    render,
    render_front,
)
from assets.paper.report import claim_rows
from assets.paper.tables import sae_rows
from resources.manifest import Manifest
from resources.sources import PROJECT
from tests.assets.paper.conftest import Scheme, opened

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script>\u202e\u0000 数学 😀"
CHART = {
    "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
    "data": {"values": [{"x": "a", "y": 1}, {"x": "</script>", "y": 2}]},
    "mark": "bar",
    "encoding": {"x": {"field": "x", "type": "nominal"}, "y": {"field": "y", "type": "quantitative"}},
}


def manifest(asset: str) -> Manifest:
    return Manifest(
        asset=asset, key=f"key-of-{asset}", code_version=1, experiment="a", sections={}, section_versions={}, inputs={},
        files={}, metrics={"live_latents": 7, "held_out": {"fvu": 0.25}, "agreement_kappa": 0.4375}, columns=[],
        seconds=1, device="cpu", packages={}, created="2026-11-22",
    )  # fmt: skip


def report(
    example: str = HOSTILE, *, found: Mapping[str, Measurement | None] = MappingProxyType({}), comparable: bool = False
) -> str:
    measured = {claim.id: Measurement(1.5, None, None, "ablation_kl") for claim in CLAIMS} | dict(found)
    context = {"rollout": 0, "position": 1, "value": 2.0, "before": example, "token": example, "after": example}
    unit = {
        "unit": "latent:3", "explanation": example, "explainer": "statistical", "label": 0, "stability": 0.5,
        "balanced_accuracy": 0.9, "ci_low": 0.8, "ci_high": 1.0, "contexts": [context],
    }  # fmt: skip
    row = {"base": "0.1 [0.0, 0.2]", "base_paper": None, "lora": "0.4 [0.3, 0.5]", "lora_paper": 7 / 30}
    table = [{"benchmark": f"Mini {i}", **row} for i in range(3)]
    figures = [
        Figure("ablation_kl", "figure_3a", json.dumps(CHART)),
        Figure("batchtopk_sae", "new_chart", json.dumps(CHART)),
    ]
    assets = ("lora_checkpoint", "batchtopk_sae", "ablation_kl", "feature_dashboard", "interpretations")
    manifests = {asset: manifest(asset) for asset in assets}
    rows = claim_rows(measured, comparable=comparable)
    said = {"kind": "latent", "explainer": "openai/x", "method": "detection", "label": 0, "class": "monosemantic"}
    shares = ("balanced_accuracy", "intruder_accuracy", "sensitivity", "sensitivity_typical", "precision_hard")
    scored = [{**said, "units": 12, **dict.fromkeys(shares, 0.875)}]
    tables = {
        "table_1": table,
        "sae": list(sae_rows(manifests["batchtopk_sae"])),
        "explanations": scored,
        "agreement": [{"llm": 0, "statistical": -1, "units": 12}],
        "settings": [{"setting": "model.name", "here": HOSTILE, "default": "Qwen/Qwen2.5-32B-Instruct"}],
    }
    return render(HOSTILE, rows, tables, figures, [unit], manifests, comparable)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 901, 768, 400])
def test_the_report_draws_its_charts_without_network_at_any_width(
    browser: Browser, tmp_path: Path, scheme: Scheme, width: int
) -> None:
    (tmp_path / "index.html").write_text(report())
    complaints: list[str] = []
    page = opened(browser, tmp_path / "index.html", width, scheme, complaints)
    page.wait_for_function("document.querySelectorAll('figure svg').length === 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").count() == 0
    assert page.title() != "owned"
    assert "\\u202e\\u0000 数学 😀" in page.inner_text(".example h3")
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    assert complaints == []


@pytest.mark.browser
@pytest.mark.slow
def test_no_word_of_a_table_is_broken(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(report())
    page = opened(browser, tmp_path / "index.html", 1000, "light", [])
    lines = """cells => cells.filter(cell => /^\\w+$/.test(cell.innerText)).map(cell => {
        const text = document.createRange(); text.selectNodeContents(cell); return text.getClientRects().length; })"""
    found = page.eval_on_selector_all(".pinned:not(.beside) th, .pinned:not(.beside) td", lines)
    assert len(found) > 10 and set(found) == {1}


def test_the_papers_number_stands_under_ours_and_only_where_there_is_one() -> None:
    page = report()
    assert "<th>base</th>" in page
    assert page.count(">paper 0.233<") == page.count(">paper ") == 3


def test_each_figure_says_what_it_shows_with_the_papers_number_and_its_files() -> None:
    page = report()
    assert "<b>Figure 3a.</b> KL divergence from the full adapter with one layer" in page
    assert "Paper: layers 44, 45, 46 and 62 of 64 matter most." in page
    assert ">KL without MLP adapters over KL without attention</a>: paper above 1, here 1.50" in page
    assert "new chart" in page.split('id="more-figures"')[1]
    for name in ("ablation_kl-figure_3a", "batchtopk_sae-new_chart"):
        assert f'href="figures/{name}.svg"' in page
        assert f'href="figures/{name}.png"' in page


def test_a_figure_says_where_its_claim_was_not_measured() -> None:
    page = report(found={"mlp_over_attention_kl": None})
    assert ">KL without MLP adapters over KL without attention</a>: paper above 1, not measured here</span>" in page


def test_each_table_has_its_csv_and_the_sae_the_published_sizes() -> None:
    page = report()
    for name in ("claims", "table_1", "sae", "examples"):
        assert f'href="tables/{name}.csv"' in page
    assert 'href="report.json"' in page
    metrics = {"d_sae": 224, "live_latents": 200, "effect": None}
    assert list(sae_rows(manifest("batchtopk_sae").model_copy(update={"metrics": metrics}))) == [
        {"number": "latents", "measured": 224, "paper": 3584},
        {"number": "live latents", "measured": 200, "paper": 2000},
    ]


@pytest.mark.parametrize(("comparable", "verdict"), [(True, "not bounded"), (False, "not comparable")])
def test_a_claim_without_bounds_says_so_in_the_interval_column_and_the_page_says_why(
    comparable: bool, verdict: str
) -> None:
    unsure = Measurement(0.85, None, None, "benchmark_scores", unbounded=True)
    page = report(found={"recovery_choice": unsure, "recovery_least": unsure}, comparable=comparable)
    (row,) = re.findall(r'<tr id="claim-recovery_choice">.*?</tr>', page, re.DOTALL)
    assert '<td class="number" data-name="95 % interval">not bounded</td>' in row
    assert f'<td class="verdict {verdict.replace(" ", "-")}">{verdict}</td>' in row
    assert '<li class="not-bounded"><b>' in page
    assert "Not bounded: the full finetune's own gain may be 0" in page
    assert "Not bounded:" not in report()


def test_the_page_says_why_classes_by_predicates_are_not_comparable_on_the_papers_own_model() -> None:
    shares = Measurement(0.62, 0.6, 0.64, "category_densities", as_published=False)
    assert "Classes that statistical predicates gave" in report(found={"latents_monosemantic": shares}, comparable=True)
    assert "Classes that statistical predicates gave" not in report(comparable=True)
    assert "This is not the paper's model" not in report(comparable=True)


def test_every_verdict_has_a_colour_and_a_line_in_the_documentation() -> None:
    style, page = (SITE / "report.css").read_text(), (PROJECT / "docs/how-to/show.md").read_text()
    assert all(f".{verdict.replace(' ', '-')}" in style for verdict in VERDICTS)
    assert all(f"`{verdict}`" in page for verdict in VERDICTS)


def test_each_claim_links_to_its_asset_and_each_asset_to_its_manifest() -> None:
    page = report()
    for claim in CLAIMS:
        assert f'id="claim-{claim.id}"' in page
    assert 'href="#asset-ablation_kl"' in page
    assert 'id="asset-ablation_kl"' in page
    assert 'href="../../ablation_kl/key-of-ablation_kl/manifest.json"' in page
    assert 'href="http://127.0.0.1:3000/assets/ablation_kl"' in page


def test_scores_and_agreement_of_explanations_are_shown_beside_the_explainers_own_class() -> None:
    page = report()
    assert ">balanced accuracy</th>" in page
    assert ">0.875<" in page
    assert "kappa 0.438" in page


@pytest.mark.parametrize(
    ("explainer", "stability", "said"),
    [
        ("openai/x", 0.75, "75 % of further answers agree"),
        ("statistical", 1.0, "the same rule from both halves of the contexts"),
        ("statistical", 0.5, "the same rule from one half of the contexts"),
        ("statistical", 0.0, "the same rule from neither half of the contexts"),
    ],
)
def test_stability_is_said_of_answers_or_of_halves(explainer: str, stability: float, said: str) -> None:
    assert _agreed({"explainer": explainer, "stability": stability}) == said


def test_the_front_page_says_what_to_do_when_there_is_nothing() -> None:
    assert "There is no experiment yet" in render_front([], None)


def test_screen_readers_find_the_content_and_no_heading_is_skipped() -> None:
    experiment = {"name": "a", "description": "", "pages": {}, "valid": True}
    for page in (report(), render_front([experiment], None)):
        assert page.count("<main>") == page.count("</main>") == 1
        levels = [int(level) for level in re.findall(r"<h(\d)", page.split("<script>")[0])]
        assert all(after <= before + 1 for before, after in zip([0, *levels], levels, strict=False))


def test_the_charts_code_carries_its_licences_wherever_the_page_goes() -> None:
    page = report()
    for notice in ("University of Washington Interactive Data Lab", "Mike Bostock", "permission notice appear in all"):
        assert notice in page


def test_pages_are_the_same_bytes_each_time() -> None:
    assert report() == report()


@pytest.mark.parametrize("character", "\u034f\u115f\u3164\u180e\ufff9\u200b\u202e")
def test_an_invisible_character_is_shown_as_its_escape(character: str) -> None:
    assert _visible(f"a{character}b") == f"a\\u{ord(character):04x}b"


@pytest.mark.browser
@pytest.mark.slow
def test_without_javascript_the_figures_are_the_pictures_beside_the_page(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(report())
    (tmp_path / "figures").mkdir()
    for name in ("ablation_kl-figure_3a", "batchtopk_sae-new_chart"):
        drawn = '<svg xmlns="http://www.w3.org/2000/svg" width="70" height="40"/>'
        (tmp_path / "figures" / f"{name}.svg").write_text(drawn)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    figures = page.locator("figure img")
    boxes = [one.bounding_box() for one in figures.all()]
    assert [box and box["width"] for box in boxes] == [70, 70]
    described = str(figures.first.get_attribute("alt", timeout=1000))
    assert described.startswith("KL divergence from the full")
    context.close()


@pytest.mark.browser
@pytest.mark.slow
def test_on_paper_claims_have_room_and_headings_stay_with_what_they_head(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(report())
    page = opened(browser, tmp_path / "index.html", 700, "light", [])  # A4 without its margins
    page.emulate_media(media="print")
    page.wait_for_function("document.querySelectorAll('figure svg').length === 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    least = page.eval_on_selector_all(".claims tr td:nth-child(2)", "found => found.map(one => one.clientWidth)")
    assert min(least) >= 180
    style = "(one, name) => getComputedStyle(one)[name]"
    assert page.eval_on_selector("h2", style, "breakAfter") == "avoid"
    assert {page.eval_on_selector(one, style, "breakInside") for one in ("figure", "tr", ".example")} == {"avoid"}
    assert page.eval_on_selector("mark", style, "printColorAdjust") == "exact"
    assert page.eval_on_selector(".claims tr", style, "breakAfter") == "avoid"  # a table's head alone at the end
    columns = page.eval_on_selector(".figures", style, "gridTemplateColumns").split()
    assert len(columns) == 2


@pytest.mark.browser
@pytest.mark.slow
def test_figures_keep_their_white_ground_in_high_contrast(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(report())
    context = browser.new_context(forced_colors="active", color_scheme="dark")
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    colour = "one => getComputedStyle(one).backgroundColor"
    assert page.eval_on_selector("figure", colour) == "rgb(255, 255, 255)"
    assert page.eval_on_selector("body", colour) == "rgb(0, 0, 0)"
    context.close()


def test_the_page_leads_to_the_dashboard_and_to_each_of_its_sections() -> None:
    page = report()
    (contents,) = re.findall(r"<nav>.*?</nav>", page, re.DOTALL)
    headings = set(re.findall(r'<h2 id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', contents)) == headings
    assert 'href="../../feature_dashboard/key-of-feature_dashboard/index.html"' in page.split("<nav>")[0]


def test_settings_other_than_the_defaults_stand_beside_them_as_plain_text() -> None:
    page = report().split('id="settings"')[1]
    assert "<img" not in page.split("</table>")[0]
    assert '\\u202e\\u0000 数学 😀</td><td class="">Qwen/Qwen2.5-32B-Instruct</td>' in page


def test_a_missing_sae_is_not_in_the_contents() -> None:
    assert 'href="#sae"' not in render(
        HOSTILE, [], {}, [], [], {"feature_dashboard": manifest("feature_dashboard")}, False
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.83, "0.830"),
        (4.05, "4.05"),
        (123.4, "123"),
        (1234.5, "1,234"),
        (999.6, "1,000"),
        (224.0, "224"),
        (1e-5, "1.00e-05"),
    ],
)
def test_numbers_below_each_other_have_three_digits_or_are_whole(value: float, said: str) -> None:
    assert _measured(value) == said
