"""The site as a person uses it, over file:// and http, in Debian's Chromium. Screenshots stay with pytest's files."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.assets.dashboard.conftest import ELSEWHERE, Site, show, texts_of
from tests.dashboard_builders import TEXTS

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def escaped(text: str) -> str:
    """What `visible` makes of a text."""
    hidden = [*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200B, 0x200E, 0x200F, 0xFEFF]
    hidden += [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]
    return text.translate({code: f"\\u{code:04x}" for code in hidden})


def test_contexts_are_ranked_and_read_as_their_rollout(page: Page, address: str, site: Site) -> None:
    show(page, address, "#unit=latent:3")
    wanted = [r for r in site.built.contexts if r["unit"] == "latent:3" and r["sample"] == "top"][:12]
    shown = page.eval_on_selector_all(
        ".context[data-sample=top]",
        "found => found.map(one => [Number(one.dataset.value), one.querySelector('.text').textContent])",
    )
    assert [value for value, _ in shown] == sorted((value for value, _ in shown), reverse=True)
    assert len(shown) == len(wanted)
    for row, (value, text) in zip(wanted, shown, strict=True):
        content = TEXTS[row["rollout_id"]].encode()
        # A window may begin or end inside a character, which belongs to the token with its last byte.
        first, last = row["start"], row["start"] + len(row["values"])
        begin = len(content[:first].decode(errors="ignore"))
        end = len(content[:last].decode(errors="ignore"))
        assert text == escaped(TEXTS[row["rollout_id"]][begin:end])
        assert value == pytest.approx(row["value"], rel=1e-6)


@pytest.mark.parametrize("rollout", sorted(TEXTS))
def test_hostile_rollouts_show_as_text(page: Page, address: str, rollout: int) -> None:
    show(page, address, f"#unit=adapter:L0.q_proj:%2B&rollout={rollout}")
    expect(page.locator("#rollout h2")).to_have_text(f"Rollout {rollout}")
    assert page.inner_text("#rollout h2") == f"Rollout {rollout}"
    assert "".join(texts_of(page, "#rollout p.text")) == escaped(TEXTS[rollout])
    assert page.locator("img, #unit script, #rollout script, #rows script").count() == 0
    assert page.title() != "owned"


def test_a_hostile_explanation_shows_as_text_in_list_and_heading(page: Page, address: str) -> None:
    show(page, address, "#unit=adapter:L0.q_proj:%2B")
    assert page.inner_text("#unit h2").startswith('<img src=x onerror="document.title')
    assert "\\u202e\\u0000 数学" in page.inner_text("#unit h2")
    assert "category 0 / entry\\u202e" in page.inner_text("#unit .facts")
    assert page.locator("img").count() == 0
    assert page.title() == page.evaluate("`Features of ${lorascope.data.model}`")


def test_a_unit_says_how_many_of_its_typical_activations_are_predicted_where_that_is_known(
    page: Page, address: str
) -> None:
    show(page, address, "#unit=adapter:L0.q_proj:%2B")
    assert "predicts 25 % of typical activations" in page.inner_text("#unit .facts")
    page.evaluate("lorascope.go({ unit: 'latent:4' })")
    expect(page.locator("#unit .facts")).not_to_contain_text("typical")


def test_a_unit_says_what_every_method_that_was_asked_gave(page: Page, address: str) -> None:
    show(page, address, "#unit=adapter:L0.v_proj:%2B")
    facts = page.inner_text("#unit .facts")
    assert "detection score 0.98 [0.5, 1]" in facts  # 0.5 + 4 x 37 % 50 / 100
    assert "fuzzing score 0.625" in facts
    assert "finds 25 % of intruders" in facts
    page.evaluate("lorascope.go({ unit: 'adapter:L0.q_proj:+' })")
    expect(page.locator("#unit .facts")).not_to_contain_text("intruders")


def test_nothing_but_the_sites_own_files_may_load(page: Page, address: str) -> None:
    show(page, address)
    policy = page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    refused = page.evaluate(
        "address => new Promise(done => {"
        " document.addEventListener('securitypolicyviolation', event => done(event.blockedURI));"
        " const image = document.createElement('img'); image.src = address; document.body.append(image); })",
        ELSEWHERE,
    )
    assert refused == ELSEWHERE


@pytest.mark.parametrize("scheme", ["address", "web_address"])
def test_a_deep_link_restores_unit_rollout_and_token(page: Page, scheme: str, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue(scheme)
    show(page, address, "#unit=latent:3&rollout=9&token=17")
    page.wait_for_selector("#rollout .peak")
    assert "latent:3" in page.inner_text("#unit p.soft")
    assert page.inner_text("#rollout h2") == "Rollout 9"
    assert str(page.get_attribute("#rollout .peak", "title", timeout=2000)).startswith("token 17")
    assert page.get_attribute("#rows .chosen", "data-unit") == "latent:3"
    page.reload()
    page.wait_for_selector("#rollout .peak")
    assert str(page.get_attribute("#rollout .peak", "title")).startswith("token 17")


def test_an_unknown_unit_or_rollout_says_so(page: Page, address: str) -> None:
    page.goto(address + "#unit=latent:999")
    expect(page.locator("#unit")).to_contain_text("no unit latent:999")
    show(page, address, "#unit=latent:3")
    page.evaluate("lorascope.go({ unit: 'latent:999' })")
    expect(page.locator("#unit")).to_contain_text("no unit latent:999")
    expect(page.locator("#rollout")).to_be_empty()  # not the rollout of the unit before
    page.goto(address + "#unit=latent:3&rollout=12345")
    expect(page.locator("#rollout")).to_contain_text("12345 is not in this dashboard")


@pytest.mark.parametrize(
    ("search", "filters"),
    [
        ("number 3", {}),
        ("", {"kind": "latent", "label": "1"}),
        ("TOKEN B", {"category": "category 1"}),
        ("latent:1", {"alive": ""}),
        ("数学", {}),
        ("nothing like this", {}),
    ],
)
def test_search_and_filters_find_what_a_plain_query_finds(
    page: Page, address: str, site: Site, search: str, filters: dict[str, str]
) -> None:
    from assets.dashboard.artifact import FeatureDashboard

    show(page, address)
    page.fill("#search", search)
    for name, value in filters.items():
        page.select_option(f"[name={name}]", value)
    expected = set()
    for row in FeatureDashboard.open(site.folder).table().to_pylist():
        text = f"{row['unit']} {row['explanation']} {' '.join(row['tokens'])}".lower()
        kept = all(word in text for word in search.lower().split())
        kept &= filters.get("alive") == "" or row["n_fired"] > 0
        if kept and all(str(row[name]) == value for name, value in filters.items() if name != "alive"):
            expected.add(row["unit"])
    assert set(page.evaluate("lorascope.list.shown()")) == expected
    assert page.inner_text("#count").startswith(f"{len(expected)} of ")


@pytest.mark.parametrize(("order", "column"), [("density", "density"), ("max", "max"), ("score", "score")])
def test_the_list_is_ordered_by_what_one_chooses(page: Page, address: str, order: str, column: str) -> None:
    show(page, address)
    page.select_option("[name=order]", order)
    values = page.evaluate(
        f"lorascope.list.shown().map(id => lorascope.data.units.{column}[lorascope.data.units.unit.indexOf(id)])"
    )
    assert values == sorted(values, reverse=True)
    assert len(values) > 50


def test_a_copied_link_leads_to_its_token(page: Page, web_address: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    show(page, web_address, "#unit=latent:3")
    first = page.locator(".context").first
    first.get_by_role("button", name="link").click()
    expect(first.get_by_role("button", name="copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    rollout, position = first.get_attribute("data-rollout"), first.get_attribute("data-position")
    assert copied == f"{web_address}#unit=latent:3&rollout={rollout}&token={position}"


def test_a_token_that_ends_a_line_is_coloured_on_its_own_line_only(page: Page, address: str) -> None:
    show(page, address)
    page.evaluate(
        "document.querySelector('.context .text').replaceChildren(...lorascope.runs("
        "['a', '.\\n', 'b'], 0, 3, i => i === 1, () => lorascope.token('.\\n', 1, 1, '')))"
    )
    assert page.locator(".context .text").first.evaluate("one => one.textContent") == "a.\nb"
    assert page.eval_on_selector(".context .text .fires", "one => [one.textContent, one.getClientRects().length]") == [
        ".",
        1,
    ]


def test_a_lone_token_shows_its_spaces_and_line_ends(page: Page, address: str) -> None:
    show(page, address)
    assert page.evaluate("lorascope.lone(' a  b ')") == "␣a  b␣"
    assert page.evaluate("lorascope.lone('\\n\\n')") == "↵↵"
    span = "document.querySelector('.context .text').appendChild(lorascope.token('\\n', 1, 1, ''))"
    assert page.evaluate(f"getComputedStyle({span}, '::after').content") == '"↵"'


def test_signs_have_their_own_colour_and_line(page: Page, address: str) -> None:
    show(page, address, "#unit=adapter:L0.k_proj:-")
    page.wait_for_selector("#rollout .fires.minus")
    style = "one => getComputedStyle(one).borderBottomStyle"
    assert page.eval_on_selector("#rollout .fires.minus", style) == "dotted"
    assert page.eval_on_selector("#rollout .fires:not(.minus)", style) == "solid"


def test_a_unit_downloads_as_json_with_its_contexts(page: Page, address: str, site: Site, tmp_path: Path) -> None:
    import json

    show(page, address, "#unit=latent:3")
    with page.expect_download() as waiting:
        page.click("text=download JSON")
    waiting.value.save_as(tmp_path / "unit.json")
    found = json.loads((tmp_path / "unit.json").read_text())
    top = next(row for row in site.built.contexts if row["unit"] == "latent:3" and row["sample"] == "top")
    assert found["contexts"][0]["position"] == top["position"]
    assert found["contexts"][0]["values"] == pytest.approx(top["values"], rel=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 400])
def test_it_reads_at_any_width_in_both_themes(
    browser: Browser, address: str, scheme: Literal["light", "dark"], width: int, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    show(page, address, "#unit=latent:3")
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 23, 26)"
    assert dark == (scheme == "dark")
    if width == 400:
        page.click("#show-list")
        expect(page.locator("#search")).to_be_visible()
        # As many rows as the list has room for, though it was hidden when it was filled.
        room = page.evaluate("document.getElementById('rows').clientHeight / 52")
        assert page.locator("#rows .row").count() >= room - 1
        page.click("#rows .row >> nth=1")
        expect(page.locator("#unit h2")).to_be_visible()
    context.close()


def test_a_unit_of_a_kind_that_nobody_explained_says_so(page: Page, address: str) -> None:
    show(page, address, "#unit=latent:3")
    place = page.evaluate("lorascope.data.units.unit.indexOf('latent:4')")
    page.evaluate(f"lorascope.data.units.label[{place}] = lorascope.data.units.status[{place}] = null")
    page.evaluate("lorascope.go({ unit: 'latent:4' })")
    expect(page.locator("#unit .facts")).to_contain_text("no class (not explained)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("role", ["user", "think"])
def test_the_strongest_token_can_be_read_in_both_themes(
    browser: Browser, address: str, scheme: Literal["light", "dark"], role: str
) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    show(page, address)
    colours = page.evaluate(
        "role => ['#rollout .text', '.context .text'].flatMap(place => [1, -1].map(value => {"
        " const span = lorascope.token('a', value, 1, '');"
        " const around = lorascope.make('span', { class: role }, span);"
        " document.querySelector(place).append(around);"
        " const card = getComputedStyle(span.closest('.context') ?? document.body).backgroundColor;"
        " const style = getComputedStyle(span);"
        " return [style.color, style.backgroundColor, card].map(one => one.match(/[\\d.]+/g).map(Number)); }))",
        role,
    )
    assert len(colours) == 4
    for ink, colour, card in colours:
        mixed = [colour[3] * over + (1 - colour[3]) * under for over, under in zip(colour[:3], card, strict=True)]
        assert contrast(ink, mixed) >= 4.5  # WCAG 2, level AA
    context.close()


def contrast(one: list[float], other: list[float]) -> float:
    """Of two sRGB colours, as WCAG 2 defines it."""

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if (c := of / 255) <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for of in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_without_javascript_the_page_says_what_it_needs(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert "needs JavaScript" in page.inner_text("#unit")
    assert "Choose" not in page.inner_text("main")
    context.close()


def test_bars_and_the_chosen_row_show_in_high_contrast(browser: Browser, address: str) -> None:
    context = browser.new_context(forced_colors="active")
    page = context.new_page()
    show(page, address, "#unit=latent:3")
    page.wait_for_selector(".heat td")
    colour = "one => getComputedStyle(one).backgroundColor"
    ground = page.eval_on_selector("body", colour)
    for drawn in (".histogram i", ".strip i", ".legend i", ".row.chosen"):
        shown = page.eval_on_selector(drawn, "one => getComputedStyle(one).forcedColorAdjust")
        assert shown == "none", drawn
    assert page.eval_on_selector(".histogram i", colour) != ground
    assert page.eval_on_selector(".row.chosen", colour) != ground
    context.close()


def test_numbers_below_each_other_have_as_many_digits(page: Page, address: str) -> None:
    show(page, address, "#unit=latent:3")
    effects = texts_of(page, "#unit .columns > div:nth-child(3) td.number")
    assert len(effects) > 1
    assert {len(text.lstrip("-0.").replace(".", "")) for text in effects} == {3}
    scores = [text.rpartition(" ")[2] for text in texts_of(page, ".row .right")]
    assert {len(score) for score in scores} == {5}, scores  # 0.500 too, not 0.5


def test_escape_empties_the_search_and_shows_the_whole_list_again(page: Page, address: str) -> None:
    show(page, address)
    everything = page.inner_text("#count")
    page.keyboard.press("/")
    page.keyboard.type("nothing like this")
    expect(page.locator("#count")).to_contain_text("nothing matches")
    page.dispatch_event("#search", "keydown", {"key": "Escape"})  # as in Firefox, which empties no field by itself
    expect(page.locator("#count")).to_have_text(everything)
    assert page.input_value("#search") == ""


def test_a_long_name_breaks_instead_of_pushing_the_page_wide(page: Page, address: str) -> None:
    show(page, address, "#unit=latent:3")
    place = page.evaluate("lorascope.data.units.unit.indexOf('latent:4')")
    for name in ("category", "explainer"):
        page.evaluate(f"lorascope.data.units.{name}[{place}] = 'x'.repeat(300)")
    page.evaluate("lorascope.go({ unit: 'latent:4' })")
    expect(page.locator("#unit .facts")).to_contain_text("xxx")
    assert page.eval_on_selector("#unit", "one => one.scrollWidth - one.clientWidth") == 0


def test_the_help_says_what_the_words_of_the_page_mean(page: Page, address: str) -> None:
    show(page, address)
    page.keyboard.press("?")
    words = texts_of(page, "#help dt")
    assert {"unit", "class", "score", "fuzzing, intruders", "typical activations", "density"} <= set(words)
    page.keyboard.press("Escape")
    expect(page.locator("#help")).not_to_be_visible()


def test_a_page_without_its_data_says_so(browser: Browser, site: Site, tmp_path: Path) -> None:
    for path in site.folder.iterdir():
        if path.suffix in (".html", ".js", ".css"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    expect(page.locator("#unit")).to_have_text("This cannot be shown: data/index.js is missing or damaged")
    page.close()
