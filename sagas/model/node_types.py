"""The types of calls that add a node to a graph: what it runs, and references or plain values for its arguments.

A checker compares each reference with the parameter that it is for, so that a wrong or swapped one is an error.
``python -m tools.node_types`` writes this file.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, overload

from sagas.model.graph import NodeKind, Ref

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
R = TypeVar("R")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
D_contra = TypeVar("D_contra", contravariant=True)
E_contra = TypeVar("E_contra", contravariant=True)
F_contra = TypeVar("F_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Node0(Protocol[R_co]):
    """What a node of a graph may run, if it can be called with no argument."""

    def node_result(self) -> R_co:
        """As ``Declared.node_result``."""
        ...


class Node1(Protocol[A_contra, R_co]):
    """What a node of a graph may run, if it can be called with one argument."""

    def node_result(self, a: A_contra, /) -> R_co:
        """As ``Declared.node_result``."""
        ...


class Node2(Protocol[A_contra, B_contra, R_co]):
    """What a node of a graph may run, if it can be called with two arguments."""

    def node_result(self, a: A_contra, b: B_contra, /) -> R_co:
        """As ``Declared.node_result``."""
        ...


class Node3(Protocol[A_contra, B_contra, C_contra, R_co]):
    """What a node of a graph may run, if it can be called with three arguments."""

    def node_result(self, a: A_contra, b: B_contra, c: C_contra, /) -> R_co:
        """As ``Declared.node_result``."""
        ...


class Node4(Protocol[A_contra, B_contra, C_contra, D_contra, R_co]):
    """What a node of a graph may run, if it can be called with four arguments."""

    def node_result(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, /) -> R_co:
        """As ``Declared.node_result``."""
        ...


class Node5(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra, R_co]):
    """What a node of a graph may run, if it can be called with five arguments."""

    def node_result(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, e: E_contra, /) -> R_co:
        """As ``Declared.node_result``."""
        ...


class Node6(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra, F_contra, R_co]):
    """What a node of a graph may run, if it can be called with six arguments."""

    def node_result(  # noqa: PLR0917 - one for each reference
        self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, e: E_contra, f: F_contra, /
    ) -> R_co:
        """As ``Declared.node_result``."""
        ...


class From0(Protocol[R_co]):
    """What a node of a graph may run, in a call whose arguments are all named."""

    def node_result(self, *args: Any, **kwargs: Any) -> R_co:
        """As ``Declared.node_result``."""
        ...


class From1(Protocol[A_contra, R_co]):
    """What a node of a graph may run, in a call whose first argument is not named."""

    def node_result(self, a: A_contra, /, *args: Any, **kwargs: Any) -> R_co:
        """As ``Declared.node_result``."""
        ...


class From2(Protocol[A_contra, B_contra, R_co]):
    """What a node of a graph may run, in a call whose first two arguments are not named."""

    def node_result(self, a: A_contra, b: B_contra, /, *args: Any, **kwargs: Any) -> R_co:
        """As ``Declared.node_result``."""
        ...


class From3(Protocol[A_contra, B_contra, C_contra, R_co]):
    """What a node of a graph may run, in a call whose first three arguments are not named."""

    def node_result(self, a: A_contra, b: B_contra, c: C_contra, /, *args: Any, **kwargs: Any) -> R_co:
        """As ``Declared.node_result``."""
        ...


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

    @overload
    def __call__(
        self,
        what: Node0[R],
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: Node1[A, R],
        a: Ref[A] | A,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: Node2[A, B, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: Node3[A, B, C, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: Node4[A, B, C, D, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        d: Ref[D] | D,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: Node5[A, B, C, D, E, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        d: Ref[D] | D,
        e: Ref[E] | E,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: Node6[A, B, C, D, E, F, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        d: Ref[D] | D,
        e: Ref[E] | E,
        f: Ref[F] | F,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: Node0[R],
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: Node1[A, R],
        a: Ref[A] | A,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: Node2[A, B, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: Node3[A, B, C, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: Node4[A, B, C, D, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        d: Ref[D] | D,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: Node5[A, B, C, D, E, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        d: Ref[D] | D,
        e: Ref[E] | E,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: Node6[A, B, C, D, E, F, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        d: Ref[D] | D,
        e: Ref[E] | E,
        f: Ref[F] | F,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: From0[R],
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
        **named: object,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: From1[A, R],
        a: Ref[A] | A,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
        **named: object,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: From2[A, B, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
        **named: object,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: From3[A, B, C, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
        **named: object,
    ) -> Ref[R]: ...
    @overload
    def __call__(
        self,
        what: From0[R],
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
        **named: object,
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: From1[A, R],
        a: Ref[A] | A,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
        **named: object,
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: From2[A, B, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
        **named: object,
    ) -> Ref[R | None]: ...
    @overload
    def __call__(
        self,
        what: From3[A, B, C, R],
        a: Ref[A] | A,
        b: Ref[B] | B,
        c: Ref[C] | C,
        /,
        *,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
        **named: object,
    ) -> Ref[R | None]: ...

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
