"""What Inductor turns collectives into: chosen, lowered, explained.

    import comm_lowering
    comm_lowering.enable()                     # from now on, in everything that is compiled
    print(comm_lowering.explain(step, batch))  # what became of each collective, and why

Importing does nothing and does not load Inductor; `disable()` puts everything back.
"""

from comm_lowering.explaining import explain, last_report, reports
from comm_lowering.policy import Policy
from comm_lowering.register import disable, enable, enabled
from comm_lowering.report import CollectiveRecord, Report

__version__ = "0.1.0"

__all__ = [
    "CollectiveRecord",
    "Policy",
    "Report",
    "disable",
    "enable",
    "enabled",
    "explain",
    "last_report",
    "reports",
]
