"""Writes sagas/model/node_types.py, with each type once for every number of references: `python -m tools.node_types`.

Invariant: the same numbers give the same text, so that a test can tell whether the file is current.
"""

from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).parents[1] / "sagas/model/node_types.py"
MOST, MOST_BEFORE_NAMES = 6, 3
"""References that a checker compares with their parameters: in all, and before arguments by name."""
MOST_UNREMARKED = 5
"""Positional parameters that the linter takes."""
NUMBERS = ("no argument", "one argument", *(f"{word} arguments" for word in ("two", "three", "four", "five", "six")))
FIRST = ("first argument is", "first two arguments are", "first three arguments are")
HEAD = '''\
"""The types of calls that add a node to a graph: what it runs, and references or plain values for its arguments.

A checker compares each reference with the parameter that it is for, so that a wrong or swapped one is an error.
``python -m tools.node_types`` writes this file.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, overload

from sagas.model.graph import NodeKind, Ref
'''
ADDS = '''\
class Adds(Protocol):
    """What takes the nodes in."""

    def add_step(
        self, kind: NodeKind, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, after: Any, when: Any
    ) -> Ref[Any]:
        """Add a node that runs ``what``."""
        ...


class AddNode:
    """``g.step``, ``g.pivot``, ``g.retriable``, ``g.lookup``: adds a node that runs something of that kind."""

    __slots__ = ("_graph", "_kind")

    _kind: NodeKind

    def __init__(self, graph: Adds, kind: NodeKind) -> None:
        self._graph = graph
        self._kind = kind
'''
CALL = '''\
    def __call__(self, what: Any, /, *args: Any, after: Any = (), when: Any = None, **kwargs: Any) -> Ref[Any]:
        """Add a node.

        It begins once the nodes of all its references have ended. A step that is used again is ``charge#2``.

        Args:
            what: the step to run; ``g.step`` also takes another saga, which runs as a child.
            *args: its arguments: references, or plain values.
            after: references whose nodes must have ended first, though their values are not used.
            when: a reference to a bool: where it is false the node is skipped, and its own value is None.
            **kwargs: as ``*args``, by name.

        Raises:
            DefinitionError: it cannot be a node of this kind, or the graph is in use.
        """
        return self._graph.add_step(self._kind, what, args, kwargs, after=after, when=when)
'''


def module() -> str:
    """The whole file."""
    protocols = [_node(count) for count in range(MOST + 1)]
    protocols += [_from(count) for count in range(MOST_BEFORE_NAMES + 1)]
    overloads = "".join(
        _overload(count, named=named, skipped=skipped)
        for named, most in ((False, MOST), (True, MOST_BEFORE_NAMES))
        for skipped in (False, True)
        for count in range(most + 1)
    )
    return "\n\n".join(["\n".join([HEAD, *_variables()]), *protocols, f"{ADDS}\n{overloads}\n{CALL}"])


def _letters(count: int) -> str:
    return "ABCDEFGHIJKLMNOPQ"[:count]


def _variables() -> Iterator[str]:
    for letter in (*_letters(MOST), "R"):
        yield f'{letter} = TypeVar("{letter}")'
    for letter in _letters(MOST):
        yield f'{letter}_contra = TypeVar("{letter}_contra", contravariant=True)'
    yield 'R_co = TypeVar("R_co", covariant=True)\n'


def _node(count: int) -> str:
    return _protocol(f"Node{count}", count, f"if it can be called with {NUMBERS[count]}", ", /" if count else "")


def _from(count: int) -> str:
    said = "in a call whose arguments are all named" if not count else f"in a call whose {FIRST[count - 1]} not named"
    return _protocol(f"From{count}", count, said, (", /" if count else "") + ", *args: Any, **kwargs: Any")


def _protocol(name: str, count: int, when: str, rest: str) -> str:
    given = "".join(f", {letter.lower()}: {letter}_contra" for letter in _letters(count))
    variables = ", ".join([*(f"{letter}_contra" for letter in _letters(count)), "R_co"])
    head = f"    def node_result(self{given}{rest}) -> R_co:"
    if count > MOST_UNREMARKED:
        why = "# noqa: PLR0917 - one for each reference"
        head = f"    def node_result(  {why}\n        self{given}{rest}\n    ) -> R_co:"
    return (
        f"class {name}(Protocol[{variables}]):\n"
        f'    """What a node of a graph may run, {when}."""\n\n'
        f'{head}\n        """As ``Declared.node_result``."""\n        ...\n'
    )


def _overload(count: int, *, named: bool, skipped: bool) -> str:
    letters = _letters(count)
    lines = [
        "self",
        f"what: {'From' if named else 'Node'}{count}[{', '.join([*letters, 'R'])}]",
        *(f"{letter.lower()}: Ref[{letter}] | {letter}" for letter in letters),
        "/",
        "*",
        "after: Sequence[Ref[Any]] = ...",
        "when: Ref[bool | None]" if skipped else "when: None = ...",
        *(["**named: object"] if named else []),
    ]
    result = "Ref[R | None]" if skipped else "Ref[R]"
    return "\n".join(
        ["    @overload", "    def __call__(", *(f"        {line}," for line in lines), f"    ) -> {result}: ...\n"]
    )


if __name__ == "__main__":
    FILE.write_text(module(), encoding="utf-8")
