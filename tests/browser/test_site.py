"""The built site in a real browser: the palette, the theme's own search, the dark mode, phones.

`nox -s docs` builds the site, `nox -s browser` runs this with the Chromium that is on PATH.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `nox -s browser` has it")

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
LIMIT_MS = 20_000

pytestmark = pytest.mark.browser


def find(page: playwright.Page, query: str) -> list[str]:
    """Type a query and return the names that are shown when everything is there that it needs."""
    page.locator("dialog.kwindex input").fill(query)
    page.wait_for_selector("dialog.kwindex[data-settled=true]", state="attached")
    return page.locator(".kwindex-name").all_inner_texts()


def ready(page: playwright.Page) -> None:
    """Wait until the names are there."""
    page.wait_for_function("() => document.querySelector('.kwindex-state')?.textContent.includes('symbols')")


@pytest.mark.parametrize("key", ["/", "k"])
def test_a_key_opens_the_palette_and_enter_goes_to_the_symbol(page: playwright.Page, address: str, key: str) -> None:
    page.goto(address)
    page.keyboard.press(key)
    ready(page)
    names = find(page, "allgathertensor")
    assert names[0].endswith("all_gather_tensor")
    assert len(names) > 5
    assert "same letters" in page.locator(".kwindex-facts").first.inner_text()
    page.keyboard.press("ArrowDown")
    chosen = page.locator("[aria-selected=true] .kwindex-name").inner_text()
    assert chosen == names[1]
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("all_gather_tensor"))
    anchor = unquote(page.url.partition("#")[2])
    assert page.evaluate("(id) => document.getElementById(id) !== null", anchor)
    assert page.locator("dialog.kwindex[open]").count() == 0


def test_escape_closes_and_typing_in_a_field_does_not_open(page: playwright.Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("/")
    ready(page)
    page.keyboard.press("Escape")
    assert page.locator("dialog.kwindex[open]").count() == 0
    page.keyboard.press("/")
    find(page, "agit")
    page.keyboard.press("Escape")  # which alone would empty the field
    assert page.locator("dialog.kwindex[open]").count() == 0
    page.keyboard.press("/")
    page.keyboard.type("psum")  # in the place of what was asked before
    assert page.locator("dialog.kwindex input").input_value() == "psum"
    page.keyboard.press("Escape")
    page.evaluate("() => { const field = document.createElement('input'); document.body.append(field); field.focus() }")
    page.keyboard.press("k")
    assert page.locator("dialog.kwindex[open]").count() == 0


def test_a_query_without_an_answer_says_so_and_a_wrong_filter_too(page: playwright.Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("/")
    ready(page)
    assert find(page, "zzzzqqqq") == []
    assert page.locator(".kwindex-state").inner_text() == "Nothing found"
    find(page, "kind:nonsense x")
    assert "names no kind of entry" in page.locator(".kwindex-state").inner_text()


def test_messages_types_and_words_find_something(page: playwright.Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("/")
    ready(page)
    for query in ("only input splits", "Tensor, str -> Tensor", "psum", "agit", "raises when the ranks disagree"):
        assert find(page, query), query
        assert re.search(r":\d+$", page.locator(".kwindex-place").first.inner_text())
    loaded = page.evaluate("() => performance.getEntriesByType('resource').map((entry) => entry.name)")
    parts = [name.rpartition("/")[2] for name in loaded if "/palette/" in name]
    assert len(parts) == len(set(parts))  # each once
    assert {"names.js", "types.js", "messages.js"} < set(parts)
    assert len(parts) < 100  # of more than three hundred


def test_it_works_from_a_file(browser: playwright.Browser) -> None:
    page = browser.new_page()  # the theme's own search complains there, which is not what is tried
    page.set_default_timeout(LIMIT_MS)
    page.goto((SITE / "index.html").as_uri())
    page.keyboard.press("k")
    ready(page)
    assert find(page, "kind:class World")[0] == "comm_core.simulate.World"
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"comm_core/simulate/index\.html#comm_core\.simulate\.World$"))
    page.close()


def test_no_button_leads_to_the_search_that_the_theme_has_not_from_a_file(browser: playwright.Browser) -> None:
    phone = browser.new_page(viewport={"width": 360, "height": 740})
    phone.set_default_timeout(LIMIT_MS)
    phone.goto((SITE / "index.html").as_uri())
    phone.wait_for_function("() => document.querySelector('.md-search').hidden")
    shown = phone.locator(".md-header__inner > :is(label, button):visible")
    assert [one.get_attribute("for") or one.inner_text() for one in shown.all()] == ["__drawer", "/"]
    phone.close()


def test_a_screen_reader_is_told_what_is_chosen(page: playwright.Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("/")
    ready(page)
    find(page, "broadcast")
    field = page.get_by_role("combobox", name="Search symbols")
    assert field.get_attribute("aria-activedescendant") == "kwindex-0"
    assert page.get_by_role("option").count() == 10
    assert page.locator(".kwindex-state").get_attribute("aria-live") == "polite"


def test_the_search_of_the_theme_finds_a_page(page: playwright.Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("textbox", name="Search").fill("find a hang")
    first = page.locator(".md-search-result__link").first
    first.wait_for()
    first.click()
    page.wait_for_url(re.compile("hang"))
    assert page.locator("h1").count() == 1


def test_on_a_phone_the_palette_fills_the_screen(browser: playwright.Browser, address: str) -> None:
    phone = browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True)
    phone.goto(address)
    phone.get_by_role("button", name="Symbols").tap()
    ready(phone)
    find(phone, "all_gather_into_tensor_coalesced")
    box = phone.locator("dialog.kwindex").bounding_box()
    assert box is not None
    assert (box["width"], box["height"]) == (360, 740)
    assert phone.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    phone.close()


def test_dark_mode_turns_page_and_palette_dark(browser: playwright.Browser, address: str) -> None:
    dark = browser.new_page(color_scheme="dark")
    dark.goto(address)
    dark.keyboard.press("/")
    ready(dark)
    shade = (
        "(at) => getComputedStyle(document.querySelector(at)).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert max(dark.evaluate(shade, "body")) < 80
    assert max(dark.evaluate(shade, "dialog.kwindex")) < 80
    dark.close()


def test_tables_names_and_pictures_can_be_read(page: playwright.Page, address: str) -> None:
    """Eight columns fit a desk's screen, underlines do not hide underscores, words of pictures are not too small."""
    page.set_viewport_size({"width": 1360, "height": 900})
    page.goto(address + "index/generated/search_quality/index.html")
    fits = "node => node.scrollWidth <= node.clientWidth"
    assert page.locator(".md-typeset__scrollwrap").first.evaluate(fits)
    page.goto(address + "reference/collectives/index.html")
    room = "cell => cell.getBoundingClientRect().width / parseFloat(getComputedStyle(cell).fontSize)"
    assert page.locator("td:nth-child(2)").first.evaluate(room) > 12
    page.goto(address + "reference/collectives/all_reduce/index.html")
    link = page.locator("li > a:has(> code)").first
    of = "a => ['textUnderlineOffset', 'fontSize'].map((name) => parseFloat(getComputedStyle(a)[name]))"
    offset, size = link.evaluate(of)
    assert offset >= 0.4 * size
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.locator("svg.who").first.evaluate("picture => picture.getBoundingClientRect().width") >= 500
    page.reload()
    assert page.locator(":has(> svg.who)").first.get_attribute("tabindex") == "0"  # the arrow keys scroll it
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
