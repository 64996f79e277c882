"""Follows the paths through a body in the order in which it runs, with one fact: whether the pivot has been passed.

Invariant: that fact is told where it holds on every path to a place; where a path may skip the pivot it does not hold.
"""

import ast
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from sagas.model.definition import SagaDef
from sagas.model.names import Function, Names, Role, is_block

At = bool | None
"""Whether the pivot has been passed on every path to a place; None where no path leads to it."""


@attrs.frozen(eq=False, kw_only=True)
class Frame:
    """A function being followed."""

    owner: SagaDef[..., Any]
    """The saga to whose body it belongs."""
    file: str
    offset: int
    names: Names
    in_block: bool
    """Within a parallel block, a map or a savepoint."""
    sure: bool
    """Whether it is known to be called, with the saga where it takes one; else its steps are collected only."""
    returns: list[At] = attrs.field(factory=list[At])
    breaks: list[At] = attrs.field(factory=list[At])
    """What holds where the innermost loop is left by ``break``."""


def meet(*ways: At) -> At:
    """What holds where several paths come together."""
    reached = [way for way in ways if way is not None]
    return all(reached) if reached else None


class Paths(ABC):
    """The paths through one function at a time; a subclass says what calls, and functions of the body, do."""

    frame: Frame

    @abstractmethod
    def call(self, node: ast.Call, at: At, *, awaited: bool) -> At:
        """Follow a call; ``awaited`` where what it returns is awaited at once."""

    @abstractmethod
    def defined(self, function: Function, *, kept: bool) -> None:
        """A function is defined in the body; ``kept`` where it may be called in ways that are not seen."""

    @abstractmethod
    def mentioned(self, name: ast.Name) -> None:
        """A name is read other than to call it."""

    def function(self, body: Sequence[ast.stmt], frame: Frame, at: At) -> At:
        """Follow a function from its beginning; what holds where it returns."""
        with self.within(frame):
            end = self._block(body, at)
        return meet(end, *frame.returns)

    @contextmanager
    def within(self, frame: Frame) -> Generator[None]:
        """Follow what is around under another frame."""
        outer = getattr(self, "frame", frame)
        self.frame = frame
        try:
            yield
        finally:
            self.frame = outer

    # -- statements ------------------------------------------------------------------------------------------------

    def _block(self, body: Iterable[ast.stmt], at: At) -> At:
        for statement in body:
            if at is None:
                break
            at = self._statement(statement, at)
        return at

    def _statement(self, node: ast.stmt, at: At) -> At:
        match node:
            case ast.If():
                return self._if(node, at)
            case ast.For() | ast.AsyncFor() | ast.While():
                return self._loop(node, at)
            case ast.Try() | ast.TryStar():
                return self._try(node, at)
            case ast.With() | ast.AsyncWith():
                return self._with(node, at)
            case ast.Match():
                return self._match(node, at)
            case _:
                return self._simple(node, at)

    def _simple(self, node: ast.stmt, at: At) -> At:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                at = self.expressions([*node.decorator_list, node.args], at)
                plain = self.frame.names.helper(ast.Name(node.name, ast.Load()))
                self.defined(node, kept=plain is None or plain[0] is not node)
            case ast.ClassDef():
                at = self.expressions([*node.decorator_list, *node.bases, *node.keywords], at)
                at = self._block(node.body, at)
            case ast.Assign(targets=targets, value=value):
                at = self.expressions([value, *targets], at)
            case ast.Assert(test=test, msg=message):
                at = self.expression(test, at)
                self.expression(message, at)
            case _:
                at = self.expressions(ast.iter_child_nodes(node), at)
                return self._left(node, at)
        return at

    def _left(self, node: ast.stmt, at: At) -> At:
        """What holds after a statement that may leave the function or the loop."""
        if isinstance(node, ast.Return):
            self.frame.returns.append(at)
        elif isinstance(node, ast.Break):
            self.frame.breaks.append(at)
        elif not isinstance(node, ast.Raise | ast.Continue):
            return at
        return None

    def _if(self, node: ast.If, at: At) -> At:
        """Each ``elif`` in turn, however many there are."""
        ways: list[At] = []
        while True:
            at = self.expression(node.test, at)
            known = _constant(node.test)
            if known is not False:
                ways.append(self._block(node.body, at))
            if known is True:
                return meet(*ways)
            match node.orelse:
                case [ast.If() as other]:
                    node = other
                case others:
                    return meet(*ways, self._block(others, at))

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, at: At) -> At:
        """The body may run not at all, and what holds after several rounds held before the first."""
        at = self.expressions([node.test] if isinstance(node, ast.While) else [node.iter, node.target], at)
        known = _constant(node.test) if isinstance(node, ast.While) else None
        breaks: list[At] = []
        if known is not False:
            with self.within(attrs.evolve(self.frame, breaks=breaks)):
                self._block(node.body, at)
        return meet(None if known else self._block(node.orelse, at), *breaks)

    def _try(self, node: ast.Try | ast.TryStar, at: At) -> At:
        """A handler, and what is done finally, may be come to from before the first step of the body."""
        ways = [self._block(node.orelse, self._block(node.body, at))]
        for handler in node.handlers:
            self.expression(handler.type, at)
            ways.append(self._block(handler.body, at))
        end, last = meet(*ways), self._block(node.finalbody, at)
        return None if end is None or last is None else end or last

    def _with(self, node: ast.With | ast.AsyncWith, at: At) -> At:
        ours = [isinstance(node, ast.AsyncWith) and self._is_block(item.context_expr) for item in node.items]
        for item in node.items:
            at = self.expression(item.optional_vars, self.expression(item.context_expr, at))
        with self.within(attrs.evolve(self.frame, in_block=self.frame.in_block or any(ours))):
            end = self._block(node.body, at)
        return end if all(ours) else at  # any other context manager may swallow the exception of the body's first step

    def _is_block(self, node: ast.expr) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and is_block(node, "parallel", "savepoint")
            and self.frame.names.role(node.func.value) is Role.SAGA
        )

    def _match(self, node: ast.Match, at: At) -> At:
        at = self.expression(node.subject, at)
        ways = [self._block(case.body, self.expression(case.guard, at)) for case in node.cases]
        complete = any(case.guard is None and _is_irrefutable(case.pattern) for case in node.cases)
        return meet(*ways, *([] if complete else [at]))

    # -- expressions -----------------------------------------------------------------------------------------------

    def expressions(self, nodes: Iterable[ast.AST], at: At) -> At:
        """Follow expressions, one after the other."""
        for node in nodes:
            at = self.expression(node, at)
        return at

    def expression(self, node: ast.AST | None, at: At, *, awaited: bool = False) -> At:
        """Follow an expression in the order in which its parts are evaluated; what holds after it."""
        match node:
            case ast.Await(value=value):
                return self.expression(value, at, awaited=True)
            case ast.Call():
                return self.call(node, at, awaited=awaited)
            case ast.IfExp() | ast.BoolOp() | ast.Compare():
                return self._fork(node, at, awaited=awaited)
            case ast.NamedExpr(value=value):
                return self.expression(value, at, awaited=awaited)
            case _:
                return self._plain(node, at)

    def _plain(self, node: ast.AST | None, at: At) -> At:
        match node:
            case None:
                pass
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                at = self._comprehension(node, at)
            case ast.Lambda(args=arguments):
                at = self.expression(arguments, at)
                self.defined(node, kept=True)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    at = self.expression(value, self.expression(key, at))
            case ast.Name():
                self.mentioned(node)
            case _:
                at = self.expressions(ast.iter_child_nodes(node), at)
        return at

    def _fork(self, node: ast.IfExp | ast.BoolOp | ast.Compare, at: At, *, awaited: bool) -> At:
        match node:
            case ast.IfExp(test=test, body=body, orelse=orelse):
                at = self.expression(test, at)
                known = _constant(test)
                ways = [part for part, way in ((body, True), (orelse, False)) if known in (way, None)]
                return meet(*(self.expression(part, at, awaited=awaited) for part in ways))
            case ast.BoolOp(values=values) if awaited:  # one of them is
                return meet(*(self.expression(value, at, awaited=True) for value in values))
            case ast.BoolOp(values=[first, *others]):
                at = self.expression(first, at)
            case ast.Compare(left=left, comparators=[first, *others]):
                at = self.expressions([left, first], at)
            case _:
                return at
        self.expressions(others, at)  # these may be left out
        return at

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, at: At) -> At:
        """As a loop; a generator may be run later, out of the block around it."""
        first, *others = node.generators
        at = self.expression(first.iter, at)
        in_block = self.frame.in_block and not isinstance(node, ast.GeneratorExp)
        parts: list[ast.AST] = [*first.ifs]
        for other in others:
            parts += [other.iter, *other.ifs]
        parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        with self.within(attrs.evolve(self.frame, in_block=in_block)):
            self.expressions(parts, at)
        return at


def _constant(test: ast.expr) -> bool | None:
    """What a test that is written out comes to; None where it depends."""
    return bool(test.value) if isinstance(test, ast.Constant) else None


def _is_irrefutable(pattern: ast.pattern) -> bool:
    match pattern:
        case ast.MatchAs(pattern=inner):
            return inner is None or _is_irrefutable(inner)
        case ast.MatchOr(patterns=patterns):
            return any(_is_irrefutable(part) for part in patterns)
        case _:
            return False
