"""A griffe extension: how our docstrings differ from what griffe reads by itself.

Our section is called `Example:`, griffe's `Examples:`; and a class that is made by `__new__` takes its parameters.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?m)^([ ]*)Example:[ ]*$")


class OurDocstrings(griffe.Extension):
    """Adapts what griffe has collected before mkdocstrings shows it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Lets griffe recognise the example, so that it is shown as code and not as prose."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"\1Examples:", obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Gives a class the signature of its `__new__` where that is what callers pass arguments to."""
        made_by = cls.members.get("__new__")
        if isinstance(made_by, griffe.Function) and "__init__" not in cls.members:
            cls.members["__init__"] = made_by
