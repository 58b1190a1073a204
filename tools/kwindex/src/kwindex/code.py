"""The name that a line of code asks for: a call, a decorator, an import, a setting that is given or read."""

import re

FORMS = (
    (r"^@(?=[A-Za-z_])", ""),
    (r"^[a-z_][a-z0-9_]* ?= ?(?=[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_])", ""),
    (r"^(?:(?:async )?with |await |return |raise |export )+(?=[A-Za-z0-9_]+[.(=])", ""),
    (r"^os\.(?:environ\[|environ\.get\(|getenv\()['\"]([A-Za-z0-9_]+)['\"].*$", "$1"),
    (r"^from ([A-Za-z0-9_.]+) import ([A-Za-z0-9_]+)(?: as [A-Za-z0-9_]+)?$", "$1.$2"),
    (r"^import ([A-Za-z0-9_.]+)(?: as [A-Za-z0-9_]+)?$", "$1"),
    (r"^([A-Za-z_][A-Za-z0-9_.]*) ?=(?!=) ?[^ ]+$", "$1"),
    (r"(?<=[^ ])\(.*$", ""),
    (r"^torch\.ops\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)(?:\.default)?$", "$1::$2"),
    (r"^torch\.ops\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)$", "$1::$2.$3"),
    (r"^torch\.ops\.", ""),
)
"""What code looks like, and what is left of it, one form after the other; for JavaScript too, whose `$1` this is."""

_FORMS = [(re.compile(form), re.sub(r"\$(\d)", r"\\\1", left)) for form, left in FORMS]


def name_in(text: str) -> str:
    """Returns the name that a line of code asks for; of any other text nothing is taken away.

    Example:
        >>> name_in("@torch.no_grad()"), name_in("from torch.optim import Adam as A"), name_in("export TORCH_LOGS=+all")
        ('torch.no_grad', 'torch.optim.Adam', 'TORCH_LOGS')
        >>> name_in("group=dist.group.WORLD"), name_in("y = lib.f(x, 1)")
        ('dist.group.WORLD', 'lib.f')
        >>> name_in("os.environ['RANK']"), name_in("torch.ops.aten.mm.default"), name_in("return types")
        ('RANK', 'aten::mm', 'return types')
    """
    text = " ".join(text.split())
    for form, left in _FORMS:
        text = form.sub(left, text)
    return text.strip()
