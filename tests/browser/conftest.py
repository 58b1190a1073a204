"""The built site, served to Chromium: `nox -s docs` builds it, `nox -s browser` runs the tests."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `nox -s browser` has it")

FLAGS = ["--no-sandbox", "--disable-background-networking"]
LIMIT_MS = 20_000
INDEX = "search/search_index.json"
SITE = Path(__file__).resolve().parents[2] / "site"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the site and says nothing, over connections that stay, and what was sent once may be kept."""

    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        """Say that nothing changes while the tests run."""
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Keep still."""


@functools.cache
def empty_index() -> bytes:
    """The index of the theme's search, without its pages."""
    return json.dumps({**json.loads((SITE / INDEX).read_text(encoding="utf-8")), "docs": []}).encode()


class WithoutIndex(Quiet):
    """Serves the site with an index of no page for the theme's own search."""

    def do_GET(self) -> None:
        """Answer with a file, or with the empty index."""
        if self.path != f"/{INDEX}":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(empty_index())))
        self.end_headers()
        self.wfile.write(empty_index())


@contextlib.contextmanager
def served(handler: type[Quiet]) -> Iterator[str]:
    """Serve the site, and yield its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of the site."""
    with served(Quiet) as place:
        yield place


@pytest.fixture(scope="session")
def quick_address() -> Iterator[str]:
    """The address of the site without the index of the theme's search.

    Each page that opens reads that index of all pages anew, which takes as long as all else that it does, and is the
    same for all: `test_the_search_of_the_theme_finds_a_page` has it.
    """
    with served(WithoutIndex) as place:
        yield place


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright.Browser]:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "no chromium on PATH; install it, or name it with CHROMIUM=/path/to/chromium"
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def said() -> list[str]:
    """What the console of `page` said was wrong, each with the page's address."""
    return []


@pytest.fixture
def page(browser: playwright.Browser, said: list[str]) -> Iterator[playwright.Page]:
    """A page that fails the test if anything goes wrong on its console."""
    opened = browser.new_page()
    opened.set_default_timeout(LIMIT_MS)
    opened.on(
        "console",
        lambda told: said.append(f"{opened.url}: {told.text}") if told.type in ("error", "warning") else None,
    )
    opened.on("pageerror", lambda error: said.append(f"{opened.url}: {error}"))
    yield opened
    opened.close()
    assert said == []
