"""The built site, served to Chromium: `nox -s docs` builds it, `nox -s browser` runs the tests."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `nox -s browser` has it")

FLAGS = ["--no-sandbox", "--disable-background-networking"]
SITE = Path(__file__).resolve().parents[2] / "site"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the site and says nothing."""

    def log_message(self, *_: object) -> None:
        """Keep still."""


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright.Browser]:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "no chromium on PATH; install it, or name it with CHROMIUM=/path/to/chromium"
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()
