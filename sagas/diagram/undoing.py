"""Which nodes have an undo, and what it is called."""

from typing import Any

import attrs

from sagas.check.outline import Act, acts_of, outline
from sagas.diagram.picture import Mark
from sagas.model.definition import Declared, Pivot, SagaDef, Step
from sagas.model.graph import GraphDef
from sagas.model.plan import undo_key

What = Declared[..., Any] | SagaDef[..., Any] | None


@attrs.frozen
class _Has:
    """What is in a saga or its children."""

    pivot: bool
    undo: bool


class Children:
    """What the steps and sagas of one picture have in them; each saga is read once, however often it is used."""

    def __init__(self) -> None:
        self._found: dict[SagaDef[..., Any], _Has] = {}

    def undo_mark(self, key: str, name: str, what: What, *, scope: str = "") -> Mark | None:
        """The compensation of a node; None where there is nothing to undo."""
        if isinstance(what, Step):
            if what.compensating is None:
                return None
            label = str(getattr(what.compensating.fn, "__name__", f"undo {name}"))
        elif isinstance(what, SagaDef) and self._has(what).undo:
            label = f"undo {name}"
        else:
            return None
        return Mark(key=undo_key(key), label=label, kind="compensation", serves=key, scope=scope)

    def has_pivot(self, definition: SagaDef[..., Any]) -> bool:
        """Whether a saga, or a child of it, has the point of no return."""
        return self._has(definition).pivot

    def _has(self, definition: SagaDef[..., Any]) -> "_Has":
        if definition not in self._found:
            steps = steps_of(definition)
            undone = any(isinstance(step, Step) and step.compensating is not None for step in steps)
            self._found[definition] = _Has(pivot=any(isinstance(step, Pivot) for step in steps), undo=undone)
        return self._found[definition]


def steps_of(definition: SagaDef[..., Any]) -> set[Declared[..., Any]]:
    """The steps of a saga and of its children, as far as their sources show them."""
    seen: set[SagaDef[..., Any]] = set()
    found: set[Declared[..., Any]] = set()
    todo: list[What] = [definition]
    while todo:
        what = todo.pop()
        if isinstance(what, Declared):
            found.add(what)
        elif what is not None and what not in seen:
            seen.add(what)
            todo += _runs(what)
    return found


def _runs(definition: SagaDef[..., Any]) -> list[What]:
    if isinstance(definition, GraphDef):
        return [node.what_runs for node in definition.nodes]
    return [act.what for act in acts_of(outline(definition)) if isinstance(act, Act)]
