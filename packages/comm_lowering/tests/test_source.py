from __future__ import annotations

import torch.distributed

from comm_lowering import policy
from comm_lowering.source import user_line


def test_the_innermost_line_that_is_no_library_is_named() -> None:
    inner = torch.distributed.__file__
    trace = (
        '  File "/home/me/train.py", line 3, in main\n    step()\n'
        '  File "/home/me/model.py", line 9, in forward\n    y = all_reduce(x)\n'
        f'  File "{inner}", line 179, in all_reduce\n    tensor = op(\n'
        f'  File "{policy.__file__}", line 1, in takes\n    pass\n'
    )
    assert user_line(trace) == "model.py:9 in forward"


def test_a_trace_of_library_code_alone_names_its_innermost_line() -> None:
    assert user_line(f'File "{torch.distributed.__file__}", line 5, in inner').endswith(":5 in inner")
    assert user_line("").startswith("unknown")
