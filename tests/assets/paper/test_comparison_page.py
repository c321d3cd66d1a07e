"""The comparison as a page: experiments stand side by side under their own names, however many and long."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from assets.paper.claims import CLAIMS, Measurement
from assets.paper.comparison import Comparison
from assets.paper.page import claims_side_by_side, render_comparison
from assets.paper.report import claim_rows
from tests.assets.paper.conftest import opened


@pytest.mark.browser
@pytest.mark.slow
def test_the_comparison_reads_with_twenty_experiments(browser: Browser, tmp_path: Path) -> None:
    names = [f"experiment-{i}" for i in range(20)]
    rows = claim_rows({claim.id: Measurement(1.5, None, None, "x") for claim in CLAIMS}, comparable=False)
    parameters = [{"parameter": "lora.learning_rate", **{name: i / 10 for i, name in enumerate(names)}}]
    numbers = [{"number": "KL, all components", **dict.fromkeys(names, 1.25)}]
    page_text = render_comparison(names, Comparison(parameters, numbers), {names[0]: rows}, {names[0]: "../r.html"})
    (tmp_path / "index.html").write_text(page_text)
    complaints: list[str] = []
    page = opened(browser, tmp_path / "index.html", 400, "dark", complaints)
    headings = page.eval_on_selector_all("h2", "found => found.map(one => one.id)")
    assert headings == ["parameters", "claims", "numbers"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator(".verdict").count() == len(CLAIMS)
    page.screenshot(path=tmp_path / "comparison.png", full_page=True)
    assert complaints == []


def test_parameters_of_a_comparison_are_exact_and_numbers_rounded() -> None:
    found = Comparison(
        [{"parameter": "lora.learning_rate", "a": 0.00123456, "b": 1}], [{"number": "KL", "a": 0.123456, "b": 2.0}]
    )
    page = render_comparison(["a", "b"], found, {}, {})
    assert '<td class="">0.00123456</td>' in page
    assert '<td class="number">0.123</td>' in page
    assert 'href="tables/parameters.csv"' in page
    assert 'href="tables/numbers.csv"' in page
    assert "claims.csv" not in page


def test_what_is_the_same_in_every_experiment_is_grey_whatever_its_delta() -> None:
    numbers = [
        {"number": "same", "a": 1.5, "b": 1.5, "delta": 0.0},
        {"number": "other", "a": 1.5, "b": 2.5, "delta": 1.0},
    ]
    page = render_comparison(["a", "b"], Comparison([], numbers), {}, {})
    assert re.findall(r'<tr class="(\w*)"><td class="">(\w+)</td>', page) == [("soft", "same"), ("", "other")]


def test_claims_side_by_side_name_the_paper_and_each_experiments_verdict() -> None:
    rows = claim_rows({claim.id: Measurement(1.5, None, None, "x") for claim in CLAIMS}, comparable=False)
    found = {row["id"]: row for row in claims_side_by_side(["a", "b"], {"a": rows})}
    assert found["mlp_over_attention_kl"] == {
        "id": "mlp_over_attention_kl", "statement": "KL without MLP adapters over KL without attention",
        "paper": "above 1", "a": 1.5, "a verdict": "same pattern", "b": None, "b verdict": None,
    }  # fmt: skip


def test_explainers_are_compared_where_experiments_are() -> None:
    row = {"first": "a: openai/x", "second": "b: anthropic/y", "units": 4, "kappa": 0.5, "0 / 1": 1}
    page = render_comparison(["a", "b"], Comparison([], [], agreement=[row]), {}, {})
    assert "anthropic/y" in page
    assert ">0 / 1</th>" in page


@pytest.mark.browser
@pytest.mark.slow
def test_long_names_and_values_break_so_that_experiments_stand_side_by_side(browser: Browser, tmp_path: Path) -> None:
    names = ["a", "b" * 100]
    rows = claim_rows({claim.id: Measurement(1.5, None, None, "x") for claim in CLAIMS}, comparable=False)
    found = Comparison([{"parameter": "p", "a": "x" * 200, names[1]: 1}], [{"number": "n", "a": 1.5, names[1]: 2}])
    (tmp_path / "index.html").write_text(render_comparison(names, found, dict.fromkeys(names, rows), {}))
    page = opened(browser, tmp_path / "index.html", 1440, "light", [])
    assert page.eval_on_selector_all(".wide", "found => found.map(one => one.scrollWidth - one.clientWidth)") == [0] * 3


def test_an_experiment_keeps_the_underscores_of_its_name() -> None:
    found = Comparison([{"parameter": "a.b_c", "x_1": 1, "y": 2}], [{"number": "n", "x_1": 1.5, "y": 2}])
    page = render_comparison(["x_1", "y"], found, {}, {})
    assert page.count(">x_1</th>") == 2


def test_the_contents_lead_to_every_section() -> None:
    rows = claim_rows({claim.id: Measurement(1.5, None, None, "x") for claim in CLAIMS}, comparable=False)
    found = Comparison(*[[{"parameter": "p", "a": 1, "b": 2}]] * 5)
    page = render_comparison(["a", "b"], found, {"a": rows}, {})
    (contents,) = re.findall(r"<nav>.*?</nav>", page, re.DOTALL)
    assert re.findall(r'href="#([^"]+)"', contents) == re.findall(r'<h2 id="([^"]+)"', page)
