"""How long the steps of a body may take by their own timeouts and attempts, compared with its deadline.

Invariant: never more than some path through the body may really take: of alternatives the longest counts, of what runs
side by side the longest too, a loop's body counts once, and an unknown step counts nothing.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from durable_core.layer import to_ns
from sagas.model.definition import Declared, Retriable, SagaDef

Calls = Mapping[ast.Call, "Declared[..., Any] | SagaDef[..., Any]"]
Nodes = Sequence[ast.AST]


def patience_s(declared: Declared[..., Any]) -> float:
    """Seconds that the attempts of a step may take together, without the delays between them; 0 if unlimited.

    A retriable counts nothing: it comes after the pivot, when the deadline no longer counts.
    """
    timeout, attempts = declared.timeout, declared.retry.attempts
    if timeout is None or attempts is None or isinstance(declared, Retriable):
        return 0.0
    return to_ns(timeout) / 1e9 * attempts


def late(definition: SagaDef[..., Any], worst: "Worst") -> Iterator[str]:
    """A deadline that may pass although every attempt keeps its own timeout."""
    if definition.deadline is None:
        return
    deadline_s, worst_s = to_ns(definition.deadline) / 1e9, worst.saga(definition)
    if worst_s > deadline_s:
        yield (
            f"{definition.place}: the attempts of its steps may take {worst_s:g} s together and keep their "
            f"timeouts, and its deadline is {deadline_s:g} s: it would be rolled back although nothing has failed. "
            "Give it a later deadline, or the steps shorter timeouts or fewer attempts"
        )


class Worst:
    """The longest path, by the timeouts of its steps, in seconds.

    Args:
        calls: what each ``s.run`` and ``p.run`` in any of the bodies runs.
        body_of: the statements of a child saga's body; none if they cannot be read.
    """

    def __init__(self, calls: Calls, body_of: Callable[[SagaDef[..., Any]], Iterable[ast.stmt]]) -> None:
        self._calls = calls
        self._body_of = body_of
        self._within: set[SagaDef[..., Any]] = set()

    def saga(self, definition: SagaDef[..., Any]) -> float:
        """The seconds of a whole saga; a saga that runs itself counts once."""
        if definition in self._within:
            return 0.0
        self._within.add(definition)
        try:
            return self._all(self._body_of(definition))
        finally:
            self._within.remove(definition)

    def _all(self, nodes: Iterable[ast.AST]) -> float:
        return sum(map(self._of, nodes))

    def _of(self, node: ast.AST) -> float:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() | ast.ClassDef():
                return 0.0  # it counts at its call, which may not be visible
            case ast.Call():
                return self._call(node)
            case ast.AsyncWith(items=items, body=body) if _is_parallel(items):
                return max(map(self._of, body), default=0.0)
            case _:
                before, ways, after = _alternatives(node)
                return self._all(before) + max(map(self._all, ways), default=0.0) + self._all(after)

    def _call(self, node: ast.Call) -> float:
        what = self._calls.get(node)
        rest = self._all(ast.iter_child_nodes(node))
        if what is None:
            return rest
        return rest + (self.saga(what) if isinstance(what, SagaDef) else patience_s(what))


def _alternatives(node: ast.AST) -> tuple[Nodes, Sequence[Nodes], Nodes]:
    """The parts that run first, the alternatives of which one runs, and the parts that run last."""
    match node:
        case ast.If(test=test, body=body, orelse=orelse):
            return [test], [body, orelse], []
        case ast.IfExp(test=test, body=chosen, orelse=other):
            return [test], [[chosen], [other]], []
        case ast.Match(subject=subject, cases=cases):
            return [subject], [case.body for case in cases], []
        case ast.Try(body=body) | ast.TryStar(body=body):
            return body, [node.orelse, *(handler.body for handler in node.handlers)], node.finalbody
        case _:
            return list(ast.iter_child_nodes(node)), [], []


def _is_parallel(items: Iterable[ast.withitem]) -> bool:
    return any(
        isinstance(item.context_expr, ast.Call)
        and isinstance(item.context_expr.func, ast.Attribute)
        and item.context_expr.func.attr == "parallel"
        for item in items
    )
