"""What ``start`` asks of a body: that it can be called with the arguments at hand. For type checkers only."""

from typing import Protocol, TypeVar

A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


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
