"""Going from unit to unit and through a rollout, by keys, lists and the strip of its activations."""

import re

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.assets.dashboard.conftest import Site, show
from tests.dashboard_builders import THRESHOLDS

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_keys_walk_the_list_and_the_activations(page: Page, address: str) -> None:
    show(page, address, "#unit=latent:3")
    shown = page.evaluate("lorascope.list.shown()")
    page.keyboard.press("j")
    expect(page.locator("#rows .chosen")).not_to_have_attribute("data-unit", "latent:3")
    assert page.evaluate("location.hash") == f"#unit={shown[shown.index('latent:3') + 1]}".replace("+", "%2B")
    page.keyboard.press("k")
    expect(page.locator("#rows .chosen")).to_have_attribute("data-unit", "latent:3")
    named = page.get_attribute("#rows", "aria-activedescendant")
    expect(page.locator(f"#{named}")).to_have_attribute("data-unit", "latent:3")
    page.wait_for_selector("#rollout .fires")
    before = page.inner_text("#place")
    page.keyboard.press("n")
    expect(page.locator("#place")).not_to_have_text(before)
    assert " of " in page.inner_text("#place")
    # The address follows, so that it can be sent on, and neither unit nor list moves.
    token = str(page.get_attribute("#rollout .peak", "title")).split(":")[0].removeprefix("token ")
    assert page.evaluate("location.hash").endswith(f"&token={token}")


def test_reading_a_rollout_leaves_the_unit_where_one_was_and_marks_its_context(page: Page, address: str) -> None:
    show(page, address, "#unit=latent:3")
    last = page.locator(".context[data-sample=top]").last
    last.get_by_role("button", name="rollout").click()
    expect(last).to_have_class("context current")
    before = page.evaluate("document.getElementById('unit').scrollTop")
    assert before > 0
    place = f"token {last.get_attribute('data-position')}"
    expect(page.locator("#rollout .peak")).to_have_attribute("title", re.compile(f"^{place}"))
    assert page.evaluate("document.getElementById('unit').scrollTop") == before
    assert page.locator(".current").count() == 1


def test_every_rollout_of_a_unit_can_be_chosen_strongest_first(page: Page, address: str, site: Site) -> None:
    show(page, address, "#unit=latent:3")
    rows = [row for row in site.built.contexts if row["unit"] == "latent:3" and row["sample"] == "top"]
    wanted = list(dict.fromkeys(row["rollout_id"] for row in rows[: site.config.top_contexts]))
    offered = page.eval_on_selector_all("#rollout option", "found => found.map(one => Number(one.value))")
    assert offered[: len(wanted)] == wanted
    page.select_option("#rollout select", str(wanted[-1]))
    expect(page.locator("#rollout h2")).to_have_text(f"Rollout {wanted[-1]}")


def test_the_strip_shows_where_a_rollout_fires_and_leads_there(page: Page, address: str) -> None:
    show(page, address, "#unit=latent:3&rollout=9")
    ticks = page.locator("#rollout .strip i")
    assert 0 < ticks.count() <= 160
    ticks.last.click()
    named = (ticks.last.get_attribute("title") or "").split(":")[0]
    expect(page.locator("#rollout .peak")).to_have_attribute("title", re.compile(f"^{named}:"))


def test_a_rollout_left_for_its_unit_opens_again(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 900, "height": 800})
    show(page, address, "#unit=latent:3")
    button = page.locator("#unit .context").first.get_by_role("button", name="rollout")
    button.click()
    expect(page.locator("#rollout")).to_be_visible()
    page.click("#show-rollout")
    button.click()
    expect(page.locator("#rollout")).to_be_visible()


def test_the_open_unit_chosen_again_closes_the_list_of_a_narrow_page(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    show(page, address, "#unit=latent:3")
    page.click("#show-list")
    page.click("#rows .chosen")
    expect(page.locator("#unit h2")).to_be_visible()


def test_the_rollout_can_be_opened_from_the_list_of_a_narrow_page(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    show(page, address, "#unit=latent:3")
    page.click("#show-list")
    page.click("#show-rollout")
    expect(page.locator("#rollout h2")).to_be_visible()


def test_the_help_opens_at_its_beginning_on_a_small_screen(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 500})
    show(page, address)
    page.click("#show-help")
    expect(page.locator("#help h2").first).to_be_in_viewport()


@pytest.mark.parametrize("width", [641, 768, 1000, 1001])
def test_the_list_of_a_tablet_has_room_for_the_sign_at_the_end_of_a_units_name(
    page: Page, address: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    show(page, address)
    page.evaluate("document.querySelector('.row b').textContent = 'adapter:L63.gate_proj:+'")
    page.evaluate("document.querySelector('.row .right').textContent = 'class 0 · score 0.833'")
    assert page.eval_on_selector(".row b", "one => one.scrollWidth <= one.clientWidth")


def test_on_paper_stand_the_unit_and_the_rollout_that_was_opened_whole_and_without_the_list(
    page: Page, address: str
) -> None:
    show(page, address, "#unit=latent:3&rollout=9")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 900})  # A4
    assert page.locator("#list").is_hidden()
    for column in ("#unit", "#rollout"):
        assert page.eval_on_selector(column, "one => one.scrollHeight <= one.clientHeight"), column
    edges = [page.eval_on_selector(f"#{name}", "one => one.getBoundingClientRect()") for name in ("unit", "rollout")]
    assert edges[0]["bottom"] <= edges[1]["top"]
    page.evaluate("lorascope.go({ unit: 'latent:3' })")
    expect(page.locator("#rollout")).to_be_hidden()


@pytest.mark.parametrize("unit", ["adapter:L0.q_proj:+", "adapter:L0.q_proj:-", "latent:3"])
def test_an_activation_is_a_place_where_the_unit_fires(page: Page, address: str, site: Site, unit: str) -> None:
    show(page, address, f"#unit={unit.replace('+', '%2B')}")
    rollout = int(page.inner_text("#rollout h2").removeprefix("Rollout "))
    sign = -1 if unit.endswith("-") else 1
    values = np.pad(site.built.values[unit][rollout] * sign, 1)
    floor = 0 if unit.startswith("latent") else THRESHOLDS["adapter"]  # a latent's values are cut at its threshold
    here, before, after = values[1:-1], values[:-2], values[2:]
    peaks = np.count_nonzero((here > floor) & (here >= before) & (here > after))
    places = page.locator("#place")
    assert int(re.sub(r".* of | activations?", "", places.inner_text())) == pytest.approx(peaks, abs=1)
    fires = np.count_nonzero(np.abs(here) > floor)
    assert page.locator("#rollout .fires").count() == pytest.approx(fires, abs=2)
    assert 0 < peaks < np.count_nonzero((here > 0) & (here >= before) & (here > after)) or floor == 0
