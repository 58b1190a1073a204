"""The example in docs/understand/lowering.md prints what the page says it prints."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "understand" / "lowering.md"


def test_the_report_on_the_page_is_what_its_program_prints(fake_group: Callable[[int], str]) -> None:
    fake_group(2)
    text = PAGE.read_text()
    program = re.findall(r"```python\n(import torch.*?)```", text, re.S)[0]
    shown = re.findall(r"```text\n(.*?)```", text, re.S)[0]
    names: dict[str, object] = {"__name__": "block"}
    exec(compile(program, "block.py", "exec"), names)
    assert str(names["report"]) == shown.rstrip("\n")
