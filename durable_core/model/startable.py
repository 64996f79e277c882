"""The typed parameters of ``start``: its options, and bodies that can be called with the given arguments."""

from collections.abc import Mapping
from typing import Literal, Protocol, TypedDict, TypeVar

A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class StartOptions(TypedDict, total=False):
    """The options of ``start``, beside the arguments of the body."""

    id: str | None
    version: int | None
    trace: Literal["link", "join"]
    tags: Mapping[str, str] | None


class Versioned(Protocol):
    """What tells a saga or durable function from a plain function, for type checkers."""

    @property
    def version(self) -> int:
        """Its version."""
        ...


class Takes0(Versioned, Protocol[R_co]):
    """Its body can be called without arguments; these protocols are how ``start`` checks its arguments."""

    def __call__(self) -> R_co:
        """As the body."""
        ...


class Takes1(Versioned, Protocol[A_contra, R_co]):
    """Its body can be called with one argument."""

    def __call__(self, a: A_contra, /) -> R_co:
        """As the body."""
        ...


class Takes2(Versioned, Protocol[A_contra, B_contra, R_co]):
    """Its body can be called with two arguments."""

    def __call__(self, a: A_contra, b: B_contra, /) -> R_co:
        """As the body."""
        ...


class Takes3(Versioned, Protocol[A_contra, B_contra, C_contra, R_co]):
    """Its body can be called with three arguments."""

    def __call__(self, a: A_contra, b: B_contra, c: C_contra, /) -> R_co:
        """As the body."""
        ...
