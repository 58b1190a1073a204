"""Every page of the built site: it opens, its console says nothing, and no link and no anchor on it is dead."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `nox -s browser` has it")

SITE = Path(__file__).resolve().parents[2] / "site"
BATCHES = 16
HREF = re.compile(r'<a\b[^>]*?\bhref="([^"]*)"')
IDS = re.compile(r'\b(?:id|name)="([^"]+)"')

pytestmark = pytest.mark.browser


def pages() -> list[Path]:
    """The pages of the site, in order."""
    return sorted(path for path in SITE.rglob("*.html") if path.name != "404.html")


def test_no_link_and_no_anchor_of_any_page_is_dead() -> None:
    ids = functools.cache(lambda path: frozenset(IDS.findall(path.read_text(encoding="utf-8"))))
    dead = []
    for path in pages():
        own = path.relative_to(SITE).as_posix()
        for href in set(HREF.findall(path.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:|//", href):
                continue
            target, anchor = urldefrag(urljoin(f"/{own}", href.replace("&amp;", "&")))
            there = SITE / unquote(target).lstrip("/")
            there = there / "index.html" if there.is_dir() else there
            if not there.exists() or (anchor and there.suffix == ".html" and unquote(anchor) not in ids(there)):
                dead.append(f"{own}: {href}")
    assert dead == []


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_page_opens_without_a_word_on_the_console(page: playwright.Page, quick_address: str, batch: int) -> None:
    assert len(pages()) > 300
    for path in pages()[batch::BATCHES]:
        answer = page.goto(quick_address + path.relative_to(SITE).as_posix(), wait_until="load")
        assert answer is not None
        assert answer.ok, path
        assert page.locator("h1").count() >= 1, path


def test_an_error_on_the_console_and_a_picture_that_is_not_there_would_be_found(
    page: playwright.Page, said: list[str], quick_address: str
) -> None:
    page.goto(quick_address)
    with page.expect_event("pageerror"):
        page.evaluate("() => document.body.insertAdjacentHTML('beforeend', '<img src=no/such.png onerror=wrong()>')")
    found = " ".join(said)
    said.clear()
    assert "404" in found
    assert "wrong is not defined" in found
