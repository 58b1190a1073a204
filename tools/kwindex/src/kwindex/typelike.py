"""What kind of value a name is bound to, judged by how the binding is written."""

import ast

_FORMS = {"Union", "Optional", "Callable", "Literal", "Annotated", "Type", "Tuple", "List", "Dict", "Set"}
_BUILTIN_FORMS = {"list", "dict", "tuple", "set", "frozenset", "type"}
_MAKERS = {"NewType", "TypeVar", "ParamSpec", "TypeVarTuple", "TypeAliasType"}
_BUILTIN_TYPES = {"int", "str", "float", "bool", "bytes", "complex", "object", *_BUILTIN_FORMS}


def is_type_alias(name: str, annotation: ast.expr | None, value: ast.expr | None) -> bool:
    """Says whether a binding gives a type a name.

    Example:
        >>> def judge(line):
        ...     tree = ast.parse(line).body[0]
        ...     return is_type_alias(tree.targets[0].id, None, tree.value)
        >>> judge("Ranks = list[int] | None"), judge("T = TypeVar('T')"), judge("FLAGS = re.I | re.M")
        (True, True, False)
    """
    if annotation is not None and _last(annotation) == "TypeAlias":
        return True
    if isinstance(value, ast.Call):
        return _last(value.func) in _MAKERS
    if isinstance(value, ast.Subscript):
        form = _last(value.value)
        return form in _FORMS or (form in _BUILTIN_FORMS and name[:1].isupper())
    if isinstance(value, ast.BinOp):
        return _is_union(value)
    return False


def constant_name(name: str, annotation: ast.expr | None) -> bool:
    """Says whether a module's name is meant as a constant: in capitals, a dunder, or Final.

    Example:
        >>> constant_name("MAX", None), constant_name("__all__", None), constant_name("log", None)
        (True, True, False)
    """
    if annotation is not None and _last(annotation) == "Final":
        return True
    return name.isupper() or (name.startswith("__") and name.endswith("__"))


def _is_union(value: ast.BinOp) -> bool:
    """Says whether `a | b | ...` joins types: every part looks like one, and one part surely is."""
    parts: list[ast.expr] = []
    node: ast.expr = value
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        parts.append(node.right)
        node = node.left
    parts.append(node)
    return all(_may_be_type(part) for part in parts) and any(_surely_type(part) for part in parts)


def _may_be_type(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None or isinstance(node.value, str)
    return _surely_type(node) or _camel(_last(node))


def _surely_type(node: ast.expr) -> bool:
    name = _last(node.value) if isinstance(node, ast.Subscript) else _last(node)
    return name in _BUILTIN_TYPES or name in _FORMS or _camel(name)


def _camel(name: str) -> bool:
    bare = name.lstrip("_")
    return bare[:1].isupper() and not bare.isupper()


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
