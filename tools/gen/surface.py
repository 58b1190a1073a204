"""The snapshot of the public names: a changed name or parameter shows up in review as a changed line."""

from __future__ import annotations

import json

from .doors import public_names
from .sources import GENERATED, Distribution, Output

SNAPSHOT = "tests/data/public_surface.json"


def snapshot(distributions: list[Distribution]) -> Output:
    """Every package's public names with kind and parameters, as JSON."""
    packages = {
        d.package: {one.name: f"{one.kind}{one.signature}" for one in public_names(d)}
        for d in distributions
        if d.package
    }
    body = json.dumps(packages, indent=2)
    return Output(SNAPSHOT, f'{{"": "{GENERATED}",{body[1:]}\n', committed=True)
