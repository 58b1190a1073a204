"""The page of figures says what the results say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_charts_and_tables_are_those_of_the_results():
    words = [sys.executable, str(ROOT / "tools" / "bench" / "_charts.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_result_with_times_has_its_machine():
    import json

    results = {file.stem: json.loads(file.read_text()) for file in (ROOT / "docs" / "assets" / "bench").glob("*.json")}
    timed = {name: result for name, result in results.items() if name != "kwindex_judged"}  # which counts
    assert len(timed) > 6
    assert all(result["machine"]["processor"] for result in timed.values())
