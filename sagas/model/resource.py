"""Resources: parameters that the orchestrator fills with its own objects, and that are never journalled."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from durable_core import DefinitionError


class Resource:
    """The default of a parameter that an orchestrator fills. Used as it stands, it explains itself."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise DefinitionError(
            f"a resource was used ({name!r}) that has no object",
            "Outside a saga, pass the object by keyword; within one, give it to Orchestrator(resources=[...])",
        )

    def __repr__(self) -> str:
        return "resource()"


RESOURCE = Resource()
WAY_OUT = (
    "Pass exactly one of each type to Orchestrator(resources=[...]), or for `sagas worker` in the list `resources` "
    "of a module"
)
"""The advice about a missing resource."""


def resource() -> Any:
    """Mark a keyword-only parameter as filled by the orchestrator with its object of the annotated type.

    Such an object (a client, a pool) is no part of the journal. The orchestrator takes the one of
    ``Orchestrator(resources=[...])`` that has exactly this type, else the only one that is an instance of it. In a unit
    test, pass a fake by keyword.

    Returns:
        A marker, to be the parameter's default. Using it as an object raises ``DefinitionError``.

    Examples:
        >>> class Bank: ...
        >>> async def charge(order: str, *, bank: Bank = resource()) -> None: ...
    """
    return RESOURCE


def resources_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The resource parameters of ``fn``, each with its annotated type.

    Raises:
        DefinitionError: one is not keyword-only, or has no annotation.
    """
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{fn!r} has no signature that can be read", "Decorate a plain function") from error
    found: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.default is not RESOURCE:
            continue
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.annotation is inspect.Parameter.empty:
            raise DefinitionError(
                f"{fn!r}: the resource {name!r} must be keyword-only (after a `*`) and have an annotation"
            )
        found[name] = parameter.annotation
    if any(isinstance(annotation, str) for annotation in found.values()):
        found = _evaluated(fn, found)
    return found


def _evaluated(fn: Callable[..., Any], found: dict[str, Any]) -> dict[str, Any]:
    scope = {**getattr(fn, "__globals__", {}), **inspect.getclosurevars(fn).nonlocals}
    try:
        return {
            name: eval(annotation, scope) if isinstance(annotation, str) else annotation  # noqa: S307 - the user's own code
            for name, annotation in found.items()
        }
    except NameError:
        return found  # a type that is local to a function: matched by its name


def fill(wanted: dict[str, Any], resources: Sequence[object], *, what: str) -> dict[str, Any]:
    """The object for each resource parameter: the one of exactly its type, else the one instance of it.

    Raises:
        DefinitionError: none fits, or more than one.
    """
    lacking = lacks(wanted, resources, what=what)
    if lacking:
        raise DefinitionError("; ".join(lacking), WAY_OUT)
    return {name: _fits(declared, resources)[0] for name, declared in wanted.items()}


def lacks(wanted: dict[str, Any], resources: Sequence[object], *, what: str) -> list[str]:
    """The resource parameters of ``what`` that cannot be filled, each as a sentence; empty if all can."""
    return [
        _problem(name, declared, resources, what)
        for name, declared in wanted.items()
        if len(_fits(declared, resources)) != 1
    ]


def _problem(name: str, declared: Any, resources: Sequence[object], what: str) -> str:
    count = len(_fits(declared, resources))
    shown = declared if isinstance(declared, str) else getattr(declared, "__name__", repr(declared))
    given = ", ".join(type(item).__name__ for item in resources) or "none"
    problem = f"{count} resources of that type were given" if count else "no resource of that type was given"
    return f"{what} wants {name!r} of type {shown}, and {problem} (given: {given})"


def _fits(declared: Any, resources: Sequence[object]) -> list[object]:
    if isinstance(declared, str):
        return [
            item for item in resources if declared.rpartition(".")[2] in {cls.__name__ for cls in type(item).__mro__}
        ]
    exact = [item for item in resources if type(item) is declared]
    return exact or [item for item in resources if _is_a(item, declared)]


def _is_a(item: object, declared: Any) -> bool:
    try:
        return isinstance(item, declared)
    except TypeError:  # a Protocol that is not runtime-checkable: matched by the names that it asks for
        wanted: Collection[str] = getattr(declared, "__protocol_attrs__", None) or {
            name for name in declared.__dict__ if not name.startswith("_")
        }
        return all(hasattr(item, attribute) for attribute in wanted)
