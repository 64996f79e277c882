"""Fingerprints of sagas' bodies, so that a changed body under an unchanged version is noticed.

A fingerprint covers the code that decides which steps a saga runs: its body and those of its children, and the kinds
and names of their steps. It does not cover comments, docstrings, layout, decorators' options, or the code of steps and
of functions outside the body: a body makes its own decisions, and a library's next release changes none of them.

Invariant: the same source has the same fingerprint under every supported Python and wherever it stands in its file.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from hashlib import blake2b
from types import CodeType
from typing import Any

from sagas.check.graph import lines_of
from sagas.check.scan import Scan
from sagas.model.definition import SagaDef
from sagas.model.graph import GraphDef

SHORT = 8
"""Characters of a fingerprint that are enough for a person."""
_DOCUMENTED = (ast.AsyncFunctionDef, ast.FunctionDef, ast.ClassDef)
_PLACES = frozenset({"lineno", "col_offset", "end_lineno", "end_col_offset", "type_comment", "kind", "ctx"})


def fingerprint(definition: SagaDef[..., Any], found: Scan) -> str:
    """The fingerprint of a saga: 16 hex digits.

    Args:
        definition: the saga.
        found: the scan of its body and those of its children.
    """
    bodies = {definition, *found.sagas, *(use.what for use in found.uses if isinstance(use.what, SagaDef))}
    parts = {f"body {saga.name} {'' if saga is definition else saga.version} {_text(saga)}" for saga in bodies}
    parts |= {
        f"step {use.owner.name} {use.what.kind} {use.what.name}"
        for use in found.uses
        if not isinstance(use.what, SagaDef)
    }
    return blake2b("\n".join(sorted(parts)).encode(), digest_size=8).hexdigest()


def _text(definition: SagaDef[..., Any]) -> str:
    return "\n".join(lines_of(definition)) if isinstance(definition, GraphDef) else _body(definition.body)


def _body(body: Callable[..., Any]) -> str:
    """The body as text: its syntax tree, or its byte code if its source cannot be read."""
    try:
        parts = ast.parse(textwrap.dedent(inspect.getsource(body))).body
        (tree,) = (part for part in parts if isinstance(part, _DOCUMENTED))  # none: the file has changed since
        tree.decorator_list = []
        return "".join(_syntax(tree))
    except (OSError, TypeError, ValueError, SyntaxError, RecursionError):
        code: CodeType | None = getattr(inspect.unwrap(body), "__code__", None)
        return repr(body) if code is None else f"{sys.version_info[:2]} {_bytes(code)}"


def _syntax(node: ast.AST) -> Iterator[str]:
    """A syntax tree without places, docstrings and empty fields, in which versions of Python differ."""
    yield f"({type(node).__name__}"
    for name, value in ast.iter_fields(node):
        if name in _PLACES or value is None or value == []:
            continue
        yield f" {name}="
        items = _items(value)
        for item in items[name == "body" and isinstance(node, _DOCUMENTED) and _is_docstring(items[0]) :]:
            if isinstance(item, ast.AST):
                yield from _syntax(item)
            else:
                yield f"{item!r},"
    yield ")"


def _items(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | frozenset) else [value]


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _bytes(code: CodeType) -> str:
    constants = [_bytes(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames} {code.co_freevars}"


def _constant(value: Any) -> str:
    """A constant as text; sets are sorted."""
    return f"{sorted(map(repr, _items(value)))}" if isinstance(value, frozenset) else repr(value)
