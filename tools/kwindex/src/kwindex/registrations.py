"""Registrations: the calls and decorators by which a module defines operators and says how they run.

No documentation tool lists them, because they are not definitions. They are recognised by the shapes that they
have in sources; a registration whose operator is computed at run time is left out, never guessed.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from kwindex.render import cut, expression, string_of
from kwindex.scope import Meaning, Scope
from kwindex.texts import depths, first_name, is_cut, text_of

OPS, _SAME_OPS = "torch.ops.", "torch._ops.ops."
_MAY_BE_LIBRARY = (ast.Call, ast.Name)
_DISPLAYS = (ast.List, ast.Tuple, ast.Set)
_TABLES = (*_DISPLAYS, ast.Dict)
_NAMES = (ast.Name, ast.Attribute)
_OF_OTHER = "="
_ANYTHING = Meaning("", "")
"""Of a name that is bound to what nobody knows."""


class Registration(NamedTuple):
    """One registration: the kind of entry it makes, the operator, and what is registered for it."""

    kind: str
    op: str
    """Its name; after `=` the dotted name that another module binds it to."""
    detail: str
    by: str
    """The text of the function that is registered; '' means the decorated one."""


def find(node: ast.expr, scope: Scope) -> Iterator[Registration]:
    """Yields the registrations that a call or decorator makes.

    Example:
        >>> scope = Scope("module", "m", None)
        >>> scope.bind("lib", Meaning("library", "mine"))
        >>> node = ast.parse("lib.impl('add', add_meta, 'Meta')", mode="eval").body
        >>> list(find(node, scope))
        [Registration(kind='kernel', op='mine::add', detail='Meta kernel', by='add_meta')]
    """
    call = node if isinstance(node, ast.Call) else None
    if call is not None and isinstance(call.func, ast.Call):  # a decorator that is called: register(op)(function)
        by = expression(call.args[0]) if call.args else ""
        yield from (found._replace(by=found.by or by) for found in find(call.func, scope) if by)
        return
    callee = call.func if call is not None else node
    word = _meant(callee, scope)
    if word == "define" and call is not None:
        yield from _definitions(call, scope)
    elif word in {"custom_op", "triton_op"} and call is not None and call.args:
        by = expression(call.args[1]) if len(call.args) > 1 else ""
        for op in op_names(call.args[0], scope):
            yield Registration("op", op, "operator", by)
    elif word == "impl" and call is not None:
        yield from _implementations(call, scope)
    elif word in _FOR_OP:
        kind, detail = _FOR_OP[word]
        yield from _for_op(node, scope, kind, detail)
    elif word in _ADDS and call is not None and call.args and isinstance(callee, ast.Attribute):
        ops = op_names(call.args[0], scope) if _EFFECTS in _last(callee.value) else []
        yield from (Registration("side effect", op, "side effect", "") for op in ops)
    elif word.startswith("register_") and "lowering" in word and call is not None and call.args:
        yield from _for_op(node, scope, "lowering", "lowering")


def called_word(node: ast.expr, decorates: bool) -> str:
    """Returns the last word of what a call or decorator calls, '' for any other expression.

    Example:
        >>> texts = "lib.impl('add', f)", "impl", "register_lowering(op)(f)"
        >>> [called_word(ast.parse(text, mode="eval").body, False) for text in texts]
        ['impl', '', 'register_lowering']
    """
    if isinstance(node, ast.Call):
        node = node.func
        if isinstance(node, ast.Call):
            node = node.func
    elif not decorates:
        return ""
    return _last(node)


@lru_cache(maxsize=10_000)  # words of calls, of which few make up most
def may_register(word: str) -> bool:
    """Says whether what is called by a word can make a registration: hardly anything can.

    Example:
        >>> may_register("impl"), may_register("register_lowering"), may_register("print")
        (True, True, False)
    """
    return word in _WORDS or word.startswith("register_")


_FOR_OP = {
    "register_kernel": ("kernel", "kernel"),
    "register_fake": ("kernel", "fake kernel"),
    "register_op_impl": ("kernel", "fake kernel"),
    "register_meta": ("kernel", "Meta kernel"),
    "impl_abstract": ("kernel", "fake kernel"),
    "py_impl": ("kernel", "kernel"),
    "py_functionalize_impl": ("kernel", "functionalize kernel"),
    "register_vmap": ("kernel", "vmap kernel"),
    "register_autocast": ("kernel", "autocast kernel"),
    "register_torch_dispatch": ("kernel", "torch_dispatch kernel"),
    "register_autograd": ("gradient", "gradient"),
    "py_autograd_impl": ("gradient", "gradient"),
    "register_decomposition": ("decomposition", "decomposition"),
    "make_fallback": ("lowering", "fallback lowering"),
    "register_pointwise": ("lowering", "pointwise lowering"),
    "register_foreach_pointwise": ("lowering", "pointwise lowering"),
    "has_side_effect": ("side effect", "side effect"),
    "_register_effectful_op": ("side effect", "side effect"),
}
"""Callee's last word -> kind and detail, for the calls that are told their operator by receiver or argument."""
_HIGHER = {"HigherOrderOperator", "BaseHOP"}
_EFFECTS, _ADDS = "side_effect", ("add", "update")
"""Part of the name of a table of operators that have side effects, and the methods that add to it."""
_WORDS = {*_ADDS, "define", "custom_op", "triton_op", "impl", *_FOR_OP}


def marked(name: str, table: ast.expr | None, scope: Scope) -> Iterator[tuple[ast.expr, str]]:
    """Yields the operators in a table that is named as one of side effects, each with where it stands there.

    Example:
        >>> table = ast.parse("{torch.ops.mine.add, print}", mode="eval").body
        >>> [op for _, op in marked("_side_effectful_functions", table, Scope("module", "m", None))]
        ['mine::add']
    """
    if _EFFECTS in name and isinstance(table, _DISPLAYS) and scope.kind != "function":
        yield from ((item, op) for item in table.elts for op in op_names(item, scope) if not depths(op))


def higher_order(node: ast.ClassDef) -> str:
    r"""Returns the operator that a class of a higher-order operator is, '' for any other class.

    Example:
        >>> text = "class C(HigherOrderOperator):\n  def __init__(self):\n    super().__init__('cond')"
        >>> higher_order(ast.parse(text).body[0])
        'higher_order::cond'
    """
    if not any(_last(base) in _HIGHER for base in node.bases):
        return ""
    for made in node.body:
        for inner in made.body if isinstance(made, ast.FunctionDef) and made.name == "__init__" else ():
            call = inner.value if isinstance(inner, ast.Expr) else None
            if isinstance(call, ast.Call) and call.args and expression(call.func) == "super().__init__":
                name = string_of(call.args[0])
                return f"higher_order::{name}" if name else ""
    return ""


def op_names(node: ast.expr, scope: Scope) -> list[str]:
    """Returns the operators that an argument names, as `namespace::name`.

    Example:
        >>> scope = Scope("module", "m", None)
        >>> scope.bind("c10d", Meaning("path", "torch.ops._c10d_functional"))
        >>> op_names(ast.parse("[c10d.isend.default, 'mine::add', unknown]", mode="eval").body, scope)
        ['_c10d_functional::isend', 'mine::add']
    """
    if isinstance(node, _DISPLAYS):
        return [name for item in node.elts for name in op_names(item, scope)]
    if isinstance(node, ast.Name):
        known = scope.meant(node.id)
        if known is not None and known.what == "op":
            return [known.text]
    text = text_of(node, scope)
    if text is not None:
        return [cut(text.split("(", 1)[0], 120)] if "::" in text or depths(text) else []
    dotted = scope.dotted(node)
    if dotted.startswith((OPS, _SAME_OPS)) and _is_hidden(node, scope):
        return []
    if dotted.startswith(_SAME_OPS):
        dotted = OPS + dotted.removeprefix(_SAME_OPS)
    if dotted.startswith(OPS) and dotted.count(".") >= 3:
        namespace, rest = dotted[len(OPS) :].split(".", 1)
        return [f"{namespace}::{rest.removesuffix('.default')}"]
    return []


def asked_of(op: str) -> str:
    """Returns the name in another module that is the operator, '' where the operator is known.

    Example:
        >>> asked_of("=lib.prims.seed"), asked_of("mine::add")
        ('lib.prims.seed', '')
    """
    return op[1:] if op.startswith(_OF_OTHER) else ""


def _named(node: ast.expr, scope: Scope) -> list[str]:
    """Returns the operators that an argument names; where none is known, those that others bind, by their names."""
    parts = node.elts if isinstance(node, _DISPLAYS) else [node]
    return op_names(node, scope) or [name for part in parts for name in _of_other(part, scope)]


def _of_other(node: ast.expr, scope: Scope) -> list[str]:
    """Returns the name that is imported from another module, as it is named there."""
    return [_OF_OTHER + scope.dotted(node)] if isinstance(node, _NAMES) and _is_imported(node, scope) else []


def library_namespace(node: ast.expr, scope: Scope) -> str:
    """Returns the namespace of an operator library that a call makes or a name holds, else ''.

    Example:
        >>> call = ast.parse("torch.library.Library('mine', 'DEF')", mode="eval").body
        >>> library_namespace(call, Scope("module", "m", None))
        'mine'
    """
    if isinstance(node, ast.Name):
        known = scope.meaning(node.id) and scope.meant(node.id)
        return known.text if known is not None and known.what == "library" else ""
    if isinstance(node, ast.Attribute):
        known = _of_class(node, scope)
        return known.text if known is not None and known.what == "library" else ""
    if isinstance(node, ast.Call) and node.args and _last(node.func) in {"Library", "_scoped_library"}:
        return text_of(node.args[0], scope) or ""
    return ""


def _of_class(node: ast.Attribute, scope: Scope) -> Meaning | None:
    """Returns what `cls.name` or `self.name` means, where the class around gives it that meaning."""
    while scope.outer is not None and scope.kind != "class":
        scope = scope.outer
    is_own = isinstance(node.value, ast.Name) and node.value.id in {"cls", "self"} and scope.kind == "class"
    return scope.meaning(node.attr) if is_own else None


def remember(target: str, value: ast.expr, scope: Scope) -> None:
    """Notes what a plain assignment says about later registrations in the same file."""
    if isinstance(value, ast.Constant):
        return  # as most are, and `lib = None` is no other library
    made = _meaning_of(value, scope)
    if made is not None:
        scope.bind(target, made)
    else:
        _forget(target, scope)


def go_over(node: ast.For | ast.AsyncFor, scope: Scope) -> None:
    """Notes what a loop binds: each literal of the table that it goes over, or what is not known."""
    over, target = node.iter, node.target
    if isinstance(over, ast.Call) and isinstance(over.func, ast.Attribute) and over.func.attr == "items":
        over = over.func.value
        target = target.elts[0] if isinstance(target, ast.Tuple) and target.elts else target
    table = _meaning_of(over, scope) if isinstance(over, _TABLES) else _table(over, scope)
    for part in node.target.elts if isinstance(node.target, ast.Tuple) else (node.target,):
        if isinstance(part, ast.Name):
            _forget(part.id, scope)
    if table is not None and isinstance(target, ast.Name):
        scope.bind(target.id, table)


def _forget(name: str, scope: Scope) -> None:
    """Notes that what a name meant, here or around, is not what it means from here on."""
    if scope.meaning(name) is not None:
        scope.bind(name, _ANYTHING)


def _table(node: ast.expr | None, scope: Scope) -> Meaning | None:
    """Returns the table of literals that a name means."""
    known = scope.meaning(node.id) if isinstance(node, ast.Name) else None
    if known is None or known.what != "strings" or not isinstance(node, ast.Name):
        return None
    return known if scope.meant(node.id) is known else None


def _meaning_of(value: ast.expr, scope: Scope) -> Meaning | None:
    """Returns what a name means that is bound to a value."""
    if isinstance(value, _MAY_BE_LIBRARY):
        namespace = library_namespace(value, scope)
        if namespace:
            return Meaning("library", namespace)
        called = value.func if isinstance(value, ast.Call) else None
        made = scope.meaning(called.id) if isinstance(called, ast.Name) else None
        return Meaning("op", made.text) if made is not None and made.what == "op class" else None
    if isinstance(value, ast.Attribute):
        dotted = scope.dotted(value)
        is_known = dotted.startswith((OPS, _SAME_OPS, "torch.library")) or dotted in {"torch.ops", "torch._ops.ops"}
        return Meaning("path", dotted) if is_known else None
    if isinstance(value, ast.Subscript):
        names = _names_of_schemas(value, scope)
        return Meaning("strings", "\n".join(names)) if names else None
    if isinstance(value, _TABLES) and (items := value.keys if isinstance(value, ast.Dict) else value.elts):
        literals = [string_of(item) for item in items]
        return Meaning("strings", "\n".join(item or "" for item in literals)) if all(literals) else None
    return None


def _names_of_schemas(value: ast.Subscript, scope: Scope) -> list[str]:
    """Returns what stands before the brackets of a table's schemas, where an expression cuts that from each."""
    known = _table(first_name(value), scope)
    if known is None or is_cut(value) is None:
        return []
    return [schema.split("(", 1)[0].strip() for schema in known.text.split("\n")]


def _is_hidden(node: ast.expr, scope: Scope) -> bool:
    """Says whether a function around binds the first name of a path for itself, as a parameter maybe."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and scope.meaning(node.id) is not scope.meant(node.id)


def _is_imported(node: ast.expr, scope: Scope) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    known = scope.meant(node.id) if isinstance(node, ast.Name) else None
    return known is not None and known.what == "path"


def _last(callee: ast.expr) -> str:
    if isinstance(callee, ast.Attribute):
        return callee.attr
    return callee.id if isinstance(callee, ast.Name) else ""


def _meant(callee: ast.expr, scope: Scope) -> str:
    """Returns the last word of what is called, as it is called where it is imported from."""
    known = scope.meaning(callee.id) if isinstance(callee, ast.Name) else None
    return known.text.rpartition(".")[2] if known is not None and known.what == "path" else _last(callee)


def _definitions(call: ast.Call, scope: Scope) -> Iterator[Registration]:
    """Yields what `library.define(schema)` and `torch.library.define(name, schema)` define."""
    if not call.args or not isinstance(call.func, ast.Attribute | ast.Name):
        return
    namespace = library_namespace(call.func.value, scope) if isinstance(call.func, ast.Attribute) else ""
    if namespace:
        for schema in _literals(call.args[0], scope):
            yield Registration("op", f"{namespace}::{schema.split('(', 1)[0].strip()}", cut(schema, 400), "")
    elif scope.dotted(call.func) == "torch.library.define":
        schema = string_of(call.args[1]) or "" if len(call.args) > 1 else ""
        for op in op_names(call.args[0], scope):
            yield Registration("op", op, cut(op.partition("::")[2] + schema, 400), "")


def _literals(node: ast.expr, scope: Scope) -> list[str]:
    """Returns the texts that an argument is: one, or each of the table that a loop goes over."""
    known = _table(node, scope)
    if known is not None:
        return known.text.split("\n")
    text = text_of(node, scope)
    return [text] if text is not None else []


def _implementations(call: ast.Call, scope: Scope) -> Iterator[Registration]:
    """Yields what `library.impl(op, function, key)` and `torch.library.impl(library, op, key)` register."""
    arguments = list(call.args)
    if not arguments or not isinstance(call.func, ast.Attribute | ast.Name):
        return
    namespace = library_namespace(call.func.value, scope) if isinstance(call.func, ast.Attribute) else ""
    by = ""
    if namespace and len(arguments) > 1:
        by = expression(arguments.pop(1))
    elif scope.dotted(call.func) == "torch.library.impl":
        namespace = library_namespace(arguments[0], scope)
        arguments = arguments[1:] if namespace else arguments
    else:
        return
    if not arguments:
        return
    key = string_of(arguments[1]) if len(arguments) > 1 else None
    names = _literals(arguments[0], scope) if namespace else []
    ops = [name if "::" in name else f"{namespace}::{name}" for name in names] or op_names(arguments[0], scope)
    for op in ops:
        yield Registration("kernel", op, f"{key} kernel" if key else "kernel", by)


def _for_op(node: ast.expr, scope: Scope, kind: str, detail: str) -> Iterator[Registration]:
    """Yields a registration for the operator that is the receiver, else the first argument."""
    call = node if isinstance(node, ast.Call) else None
    callee = call.func if call is not None else node
    arguments = list(call.args) if call is not None else []
    ops = op_names(callee.value, scope) if isinstance(callee, ast.Attribute) else []
    if not ops and _last(callee).startswith("py_") and isinstance(callee, ast.Attribute):
        ops = _of_other(callee.value, scope)
    elif not ops and arguments:
        ops = _named(arguments.pop(0), scope)
        if isinstance(callee, ast.Attribute) and not _is_imported(callee.value, scope):
            ops = [op for op in ops if not depths(op)]  # whatever is called so may be the operator itself
    elif not ops and isinstance(callee, ast.Attribute):
        ops = _of_other(callee.value, scope)
    key = string_of(arguments[0]) if arguments else None
    by = expression(arguments[0]) if arguments and key is None and kind != "lowering" else ""
    if kind == "side effect" and by == "None":
        return  # said to have none
    if by.rpartition(".")[0].endswith("DispatchKey"):
        key, by = by.rpartition(".")[2], ""
    for op in ops:
        yield Registration(kind, op, f"{key} {detail}" if key else detail, by)
