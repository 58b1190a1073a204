"""Claim: the site's palette answers each key within 16 ms and is ready within 0.5 s of its first opening.

Every golden query is typed key by key in Chromium, on the built site (`nox -s docs`); for each key the time of the
search, of the new rows and of their layout, the middle one of three rounds, when the parts of the index that all of the
queries need have been loaded. The first opening counts from the key to an index that answers names. What is loaded is
counted for each query as if it were the first one that is asked.

    python tools/bench/palette_keys.py [--json docs/assets/bench/palette_keys.json]

It needs playwright and Chromium, as `nox -s browser` does; from the file `nox -s gen` draws tables of
docs/understand/kwindex_index.md.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import http.server
import json
import os
import re
import shutil
import statistics
import threading
from pathlib import Path
from typing import Any

from _machine import machine

from kwindex.quality import read_golden

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
KEY_MS, OPENING_MS = 16, 500
OPENINGS, ROUNDS = 5, 3
SHARES = {"half of the keys": 0.5, "19 of 20": 0.95, "99 of 100": 0.99, "all": 1.0}
FLAGS = ["--no-sandbox", "--disable-background-networking"]
OPEN = """() => new Promise((done) => {
  const start = performance.now();
  const look = () => {
    const said = document.querySelector(".kwindex-state")?.textContent || "";
    if (said.includes("symbols")) done(performance.now() - start);
    else requestAnimationFrame(look);
  };
  window.dispatchEvent(new KeyboardEvent("keydown", { key: "/", bubbles: true, cancelable: true }));
  look();
})"""
SETTLE = """async (queries) => {
  const dialog = document.querySelector("dialog.kwindex");
  const field = dialog.querySelector("input");
  for (const query of queries) {
    field.value = query;
    field.dispatchEvent(new Event("input"));
    while (dialog.dataset.settled !== "true") await new Promise((next) => setTimeout(next, 5));
  }
}"""
LOADS = """async (queries) => {
  let names;
  const parts = new Map();
  const load = async (name) => {
    if (parts.has(name)) return;
    const text = await (await fetch(`assets/palette/${name}.js`)).text();
    new Function("kwindexNames", "kwindexPart", text)((value) => (names = value), (_, value) => parts.set(name, value));
  };
  await load("names");
  const loads = [];
  for (const query of queries) {
    const searcher = new kwindexScorer.Searcher(kwindexScorer.unpack(names));
    const loaded = [];
    for (;;) {
      const hits = searcher.search(query, 10);
      const needed = searcher.missing.size ? [...searcher.missing] : searcher.lacking(hits.map((hit) => hit.entry));
      if (!needed.length) break;
      for (const name of needed) {
        await load(name);
        searcher.add(name, parts.get(name));
        loaded.push(name);
      }
    }
    loads.push(loaded);
  }
  return loads;
}"""
TYPE = """(queries) => {
  const field = document.querySelector("dialog.kwindex input");
  const taken = [];
  for (const query of queries) {
    for (let letters = 1; letters <= query.length; letters++) {
      field.value = query.slice(0, letters);
      const start = performance.now();
      field.dispatchEvent(new Event("input"));
      document.querySelector("dialog.kwindex").getBoundingClientRect();
      taken.push([performance.now() - start, field.value]);
    }
  }
  return taken;
}"""


def measured(program: str, queries: list[str]) -> dict[str, Any]:
    """Open the palette on fresh pages, then type every query."""
    from playwright.sync_api import sync_playwright

    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as tool:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = tool.chromium.launch(executable_path=program, args=FLAGS)
        openings = []
        for _ in range(OPENINGS):
            page = browser.new_context().new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            openings.append(page.evaluate(OPEN))
        symbols = page.evaluate("() => document.querySelector('.kwindex-state').textContent")
        page.evaluate(SETTLE, queries)
        page.evaluate(TYPE, queries[:20])  # the engine compiles what it runs often
        rounds = [page.evaluate(TYPE, queries) for _ in range(ROUNDS)]
        loads = page.evaluate(LOADS, queries)
        browser.close()
        server.shutdown()
    keys = [[statistics.median(time for time, _ in times), times[0][1]] for times in zip(*rounds, strict=True)]
    return {"openings": openings, "keys": keys, "loads": loads, "symbols": int(re.sub(r"\D", "", symbols))}


def weights() -> dict[str, int]:
    """Return how many bytes each file of the palette has, compressed."""
    folder = SITE / "assets" / "palette"
    return {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in folder.iterdir()}


def of_kinds(sizes: dict[str, int]) -> dict[str, list[int]]:
    """Return how many files there are of each kind, the bytes of the largest one, and of all of them."""
    kinds: dict[str, list[int]] = {}
    for name, size in sizes.items():
        kinds.setdefault(re.sub(r"-.*\.", "-*.", name), []).append(size)
    return {kind: [len(each), max(each), sum(each)] for kind, each in kinds.items()}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the site and says nothing."""

    def log_message(self, *_: object) -> None:
        """Keep still."""


def main() -> int:
    """Print how long keys and openings took; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not program or not (SITE / "index.html").exists():
        print("not measured: it needs Chromium on PATH and the built site (`nox -s docs`)")
        return 0
    got = measured(program, [golden.query for golden in read_golden(ROOT / "tools/kwindex/golden/queries.tsv")])
    times = sorted(time for time, _ in got["keys"])
    late = sorted(([time, query] for time, query in got["keys"] if time > KEY_MS), reverse=True)
    opening = statistics.median(got["openings"])
    print(
        f"first opening: median {opening:.0f} ms of {OPENINGS}, worst {max(got['openings']):.0f} ms; limit {OPENING_MS}"
    )
    for name, part in SHARES.items():
        print(f"{name} within {times[min(int(part * len(times)), len(times) - 1)]:.1f} ms")
    print(f"{len(late)} of {len(times)} keys took more than {KEY_MS} ms")
    for time, query in late[:10]:
        print(f"  {time:6.1f} ms after {query!r}")
    if options.json:
        shares = {name: times[min(int(part * len(times)), len(times) - 1)] for name, part in SHARES.items()}
        sizes = weights()
        loads = sorted(sum(sizes[f"{name}.js"] for name in ("names", *loaded)) for loaded in got["loads"])
        figures = {"opening ms": opening, "openings": OPENINGS, "keys": len(times), **shares}
        figures |= {"bytes": of_kinds(sizes), "loads half": loads[len(loads) // 2], "loads most": loads[-1]}
        figures["load"] = os.getloadavg()[0]
        result = {"claim": "palette_keys", "machine": machine(), "symbols": got["symbols"], "figures": figures}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(late) or opening > OPENING_MS)


if __name__ == "__main__":
    raise SystemExit(main())
