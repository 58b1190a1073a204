"""Who cannot see the page, sees little or has no mouse can use it: axe-core finds nothing on any kind of page.

In light on a desk, in dark on a phone of 360 pixels; nothing but code and tables is wider than the screen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `nox -s browser` has it")
axe_package = pytest.importorskip("axe_playwright_python", reason="axe is not installed; `nox -s browser` has it")

AXE = (Path(axe_package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
PAGES = {
    "home": "",
    "learn": "learn/first_collective/",
    "do": "do/find_a_hang/",
    "understand": "understand/shared_memory/",
    "matrix": "reference/collectives/",
    "collective": "reference/collectives/all_reduce/",
    "errors": "reference/errors/",
    "package": "reference/comm_core/",
    "module": "reference/comm_core/simulate/",
    "drift": "reference/drift/",
    "concordance": "reference/concordance/",
    "decision": "decisions/",
    "quality": "index/generated/search_quality/",
    "original": "originals/torch/distributed/nn/functional.py_docs/",
    "keywords": "originals/torch/distributed/nn/functional.py_kw/",
    "folder": "originals/torch/distributed/",
}
SCREENS = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 740}}

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=[("light", "desk"), ("dark", "phone")], ids="-".join)
def reader(browser: playwright.Browser, request: pytest.FixtureRequest) -> Iterator[playwright.Page]:
    """A page in one of two looks: colours do not depend on the width, nor what stands where on the colours."""
    scheme, screen = request.param
    opened = browser.new_page(color_scheme=scheme, viewport=SCREENS[screen])
    opened.set_default_timeout(20_000)
    yield opened
    opened.close()


def complaints(page: playwright.Page) -> list[str]:
    """What axe finds, a line for each element."""
    page.evaluate(AXE)
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]}: {node['failureSummary'][:300]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def too_wide(page: playwright.Page) -> int:
    """By how many pixels the page is wider than the screen."""
    return int(page.evaluate("() => document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("kind", PAGES)
def test_axe_finds_nothing_on_any_kind_of_page(reader: playwright.Page, address: str, kind: str) -> None:
    reader.goto(address + PAGES[kind])
    assert complaints(reader) == []
    assert too_wide(reader) <= 0


def test_axe_finds_nothing_in_the_palette(reader: playwright.Page, address: str) -> None:
    reader.goto(address)
    reader.get_by_role("button", name="Symbols").click()
    reader.wait_for_function("() => document.querySelector('.kwindex-state')?.textContent.includes('symbols')")
    reader.locator("dialog.kwindex input").fill("all_gather")
    reader.wait_for_selector("dialog.kwindex[data-settled=true]")
    assert reader.get_by_role("option").count() == 10
    assert complaints(reader) == []


def test_a_pale_word_and_a_button_without_a_name_would_be_found(reader: playwright.Page, address: str) -> None:
    reader.goto(address)
    reader.evaluate(
        "() => document.querySelector('.md-content').insertAdjacentHTML('afterbegin',"
        " '<p style=\"color: #999; background: #fff\">pale</p><button></button>')"
    )
    found = " ".join(complaints(reader))
    assert "color-contrast" in found
    assert "button-name" in found


def test_titles_are_whole_on_a_phone(browser: playwright.Browser, address: str) -> None:
    phone = browser.new_page(viewport=SCREENS["phone"])
    for place in PAGES.values():
        phone.goto(address + place)
        assert phone.locator(".md-header__topic .md-ellipsis").first.evaluate(
            "(e) => e.scrollWidth <= e.clientWidth"
        ), place
        assert phone.locator("h1").first.evaluate("(e) => e.scrollWidth <= e.clientWidth"), place
    phone.close()
