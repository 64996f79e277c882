"""Declarations: steps with their compensations and probes, and sagas. Frozen once a saga that uses them runs."""

import inspect
import types
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeGuard,
    TypeVar,
    Union,
    get_args,
    get_origin,
    overload,
)

import attrs

from durable_core import DefinitionError, Retry
from durable_core.layer import (
    DeclaredStep,
    Duration,
    check_name,
    check_timeout,
    check_version,
    is_async,
    place_of,
    positional,
)
from sagas.model.resource import resources_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
OnFailure = Literal["rollback", "stuck"]


# -- What a probe answers ----------------------------------------------------------------------------------------------


@attrs.frozen
class Happened(Generic[R]):
    """The step's effect took place, with this result: the step has succeeded."""

    value: R
    """What the step would have returned."""


@attrs.frozen
class DidNotHappen:
    """The step's effect did not take place, and no longer can: the body sees the last attempt's exception."""


@attrs.frozen
class StillUnknown:
    """The outcome is not known yet; the probe is called again by its retry policy."""


@attrs.frozen
class Unknown:
    """Passed to a compensation instead of a result, if its parameter admits it: the step may or may not have happened.

    Such a compensation must do no harm if nothing happened, and must prevent a late effect. All of them are equal.
    """

    error: BaseException | None = attrs.field(default=None, eq=False, repr=False)
    """What the step's last attempt raised, as the body would see it, so that the undo can use what it carries. None if
    no attempt has raised: its process died, or a host that keeps no exceptions runs the saga (Step Functions)."""


# -- Declarations ------------------------------------------------------------------------------------------------------

AsyncProbe = Callable[P, Coroutine[Any, Any, Happened[R] | DidNotHappen | StillUnknown | R | None]]
PlainProbe = Callable[P, Happened[R] | DidNotHappen | StillUnknown | R | None]

COMPENSATION_RETRY = Retry(attempts=10)
PROBE_RETRY = Retry(attempts=10)
FOREVER = Retry.forever()


@attrs.frozen(eq=False)
class Serving:
    """A compensation or probe: the function and how it is attempted."""

    fn: Callable[..., Any]
    retry: Retry
    timeout: Duration | None
    resources: dict[str, Any]
    """Parameter name to the type that fills it."""


class Declared(DeclaredStep[P, R]):
    """The base of all kinds of steps. Calling a step outside a saga's body just calls its function."""

    operation = "run"

    def __init__(self, fn: Callable[P, Any], *, on_failure: OnFailure | None = None, **options: Any) -> None:
        super().__init__(fn, **options)
        if on_failure is not None:
            check_on_failure(on_failure, self.what)
        self.on_failure: OnFailure | None = on_failure
        self.call = f"s.run({self.name}, ...)"
        self.resources = resources_of(fn)

    if TYPE_CHECKING:

        def node_result(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """The arguments and the result of a node of a graph that runs this step."""
            ...

    @property
    def settles(self) -> bool:
        """Whether an unknown outcome can be settled without a person."""
        return False

    @property
    def effect(self) -> bool:
        """Whether an unknown outcome matters."""
        return False


class Probed(Declared[P, R]):
    """A step whose unknown outcome a probe may settle."""

    probing: Serving | None = None

    @overload
    def probe(self, fn: AsyncProbe[P, R], /) -> AsyncProbe[P, R]: ...
    @overload
    def probe(self, fn: PlainProbe[P, R], /) -> PlainProbe[P, R]: ...
    @overload
    def probe(self, /, *, retry: Retry | int | None = ..., timeout: Duration | None = ...) -> "Probing[P, R]": ...
    def probe(self, fn: Any = None, /, *, retry: Retry | int | None = None, timeout: Duration | None = None) -> Any:
        """Declare the function that settles an unknown outcome: ``@charge.probe``, or with options.

        It returns ``Happened(value)``, ``DidNotHappen()`` or ``StillUnknown()``; a bare value or None is short for the
        first two if the step's result type does not admit None. Its answer is durable before the saga continues.

        Args:
            fn: the function, ``async def`` or ``def``; it takes the step's arguments, and resources of its own.
            retry: how often and when to ask again after an exception or ``StillUnknown``. Default: 10 attempts; then
                the saga is stuck.
            timeout: for one attempt, a timedelta or seconds.

        Raises:
            DefinitionError: its parameters do not fit, or the step has a probe already.

        Examples:
            >>> from sagas import DidNotHappen, Happened, step
            >>> @step
            ... async def charge(order: str) -> str: ...
            >>> @charge.probe
            ... async def find_charge(order: str) -> Happened[str] | DidNotHappen:
            ...     return DidNotHappen()
        """

        def declare(probe: Any) -> Any:
            if self.probing is not None:
                raise DefinitionError(f"{self.what} has two probes: {place_of(self.probing.fn)} and {place_of(probe)}")
            check_parameters(probe, self.fn, result=False, what=f"the probe of {self.what}")
            self.probing = Serving(
                probe,
                Retry.of(retry, PROBE_RETRY),
                check_timeout(timeout, f"the probe of {self.what}"),
                resources_of(probe),
            )
            return probe

        return declare if fn is None else declare(fn)

    @property
    def settles(self) -> bool:
        """Whether it has a probe."""
        return self.probing is not None

    @property
    def effect(self) -> bool:
        """It changes the world."""
        return True


class Step(Probed[P, R]):
    """A step that can be undone; ``@step`` makes it. Outside a saga, calling it calls its function."""

    kind = "step"
    compensating: Serving | None = None
    admits_unknown = False
    compensated_by_nothing = False
    because = ""

    @overload
    def compensate(self, undo: Callable[[R], T], /) -> Callable[[R], T]: ...
    @overload  # mypy takes P for empty here, and then both for the same
    def compensate(  # type: ignore[overload-cannot-match]
        self, undo: Callable[Concatenate[R, P], T], /
    ) -> Callable[Concatenate[R, P], T]: ...
    @overload
    def compensate(
        self, /, *, retry: Retry | int | None = ..., timeout: Duration | None = ...
    ) -> "Compensate[P, R]": ...
    def compensate(
        self, undo: Any = None, /, *, retry: Retry | int | None = None, timeout: Duration | None = None
    ) -> Any:
        """Declare how to undo the step: ``@reserve.compensate``, or with options.

        It is recorded as done before the next compensation begins. After a crash it is called again under the same
        idempotency key, which differs from the step's (``sagas.current().forward_key``).

        Args:
            undo: a function of the step's result, or of its result and its own arguments; and resources. If the first
                parameter's annotation admits ``Unknown``, it also runs for a step whose outcome is unknown.
            retry: how often and when to try again. Default: 10 attempts; then the saga is stuck.
            timeout: for one attempt, a timedelta or seconds.

        Raises:
            DefinitionError: its parameters do not fit, or the step has a compensation already.

        Examples:
            >>> from sagas import Retry, step
            >>> @step
            ... async def reserve(item: str, pieces: int) -> str: ...
            >>> @reserve.compensate(retry=Retry.forever(longest=60))
            ... async def put_back(reserved: str, item: str, pieces: int) -> None: ...
        """

        def declare(undo: Any) -> Any:
            what = f"the compensation of {self.what}"
            if self.compensating is not None:
                raise DefinitionError(
                    f"{self.what} has two compensations: {place_of(self.compensating.fn)}, {place_of(undo)}"
                )
            if self.compensated_by_nothing:
                raise DefinitionError(
                    f"{self.what} says compensation=None and has a compensation", "Drop one of the two"
                )
            check_parameters(undo, self.fn, result=True, what=what)
            self.compensating = Serving(
                undo, Retry.of(retry, COMPENSATION_RETRY), check_timeout(timeout, what), resources_of(undo)
            )
            self.admits_unknown = admits_unknown(undo)
            return undo

        return declare if undo is None else declare(undo)

    @property
    def settles(self) -> bool:
        """Whether it has a probe, or a compensation that admits ``Unknown``."""
        return self.probing is not None or self.admits_unknown

    @property
    def effect(self) -> bool:
        """Whether there is anything to undo."""
        return not self.compensated_by_nothing


class Compensate(Protocol[P, R]):
    """The type of ``@step.compensate(...)`` with options, for type checkers."""

    @overload
    def __call__(self, undo: Callable[[R], T], /) -> Callable[[R], T]: ...
    @overload  # mypy takes P for empty here, and then both for the same
    def __call__(  # type: ignore[overload-cannot-match]
        self, undo: Callable[Concatenate[R, P], T], /
    ) -> Callable[Concatenate[R, P], T]: ...


class Probing(Protocol[P, R]):
    """The type of ``@step.probe(...)`` with options, for type checkers."""

    @overload
    def __call__(self, fn: AsyncProbe[P, R], /) -> AsyncProbe[P, R]: ...
    @overload
    def __call__(self, fn: PlainProbe[P, R], /) -> PlainProbe[P, R]: ...


class Pivot(Probed[P, R]):
    """The point of no return; ``@pivot`` makes it. Outside a saga, calling it calls its function."""

    kind = "pivot"


class Retriable(Declared[P, R]):
    """A step after the pivot; ``@retriable`` makes it. Outside a saga, calling it calls its function."""

    kind = "retriable"


class Lookup(Declared[P, R]):
    """A read or a decision; ``@lookup`` makes it. Outside a saga, calling it calls its function."""

    kind = "lookup"


@attrs.frozen(eq=False, kw_only=True)
class SagaDef(Generic[P, R]):
    """A saga: a name, a version and a body. ``@saga`` makes it; it is started or run as a child, never called."""

    name: str
    """Its name when it is started, listed and traced."""
    version: int
    """From 1."""
    body: Callable[..., Coroutine[Any, Any, Any]]
    """The ``async def``."""
    deadline: Duration | None = None
    """How long a run may take before it is rolled back, a timedelta or seconds."""
    parallel_compensation: bool = False
    """Whether what ran in parallel is undone in parallel."""
    on_compensation_failure: Literal["continue", "halt"] = "continue"
    """What happens if a compensation is given up."""
    on_failure: OnFailure = "rollback"
    """What happens if a step, pivot or lookup fails that does not say so itself."""

    def __attrs_post_init__(self) -> None:
        what = f"the saga {self.name!r} ({self.place})"
        check_name(self.name, what=what)
        check_version(self.version, what)
        if not is_async(self.body):
            raise DefinitionError(f"{what}: the body must be an `async def` whose first parameter is the Saga")
        if not positional(self.body):
            raise DefinitionError(f"{what}: the body takes no parameter; the first one is the Saga")
        if self.on_compensation_failure not in ("continue", "halt"):
            raise DefinitionError(
                f"{what}: on_compensation_failure={self.on_compensation_failure!r}", "Use 'continue' or 'halt'"
            )
        check_on_failure(self.on_failure, what)
        check_timeout(self.deadline, f"{what}: deadline")

    @property
    def place(self) -> str:
        """``file:line`` of its declaration."""
        return place_of(self.body)

    if TYPE_CHECKING:

        def node_result(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """The arguments and the result of a node of a graph that runs this saga."""
            ...

    def diagram(self, format: Literal["mermaid", "dot", "svg", "bpmn"] = "mermaid") -> str:  # noqa: A002 - the contract's
        """Draw the saga: a graph exactly, a body as far as its source shows it. Nothing is run.

        Args:
            format: ``mermaid`` (a flowchart), ``dot`` (Graphviz), ``svg`` or ``bpmn`` (BPMN 2.0 with a layout).

        Returns:
            The text of the picture; the same for the same saga.

        Raises:
            ValueError: there is no such format.
        """
        # The drawing reads definitions, so this module must not know it before it is asked for.
        formats = import_module("sagas.diagram.formats")
        text: str = formats.diagram_of(self, format)
        return text

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: ARG002 - typed as the body is
        """Never returns: sagas are started, or run as children, never called."""
        raise DefinitionError(
            f"the saga {self.name!r} was called like a function",
            "Start it with `await orchestrator.start(...)`, or run it within another saga with `await s.run(...)`",
        )


def check_on_failure(given: str, what: str) -> None:
    """Refuse what is no policy for failures."""
    if given not in ("rollback", "stuck"):
        raise DefinitionError(f"{what}: on_failure={given!r}", "Use 'rollback' or 'stuck'")


def is_step(what: object) -> TypeGuard[Declared[..., Any]]:
    """Whether it is a declared step of any kind."""
    return isinstance(what, Declared)


def is_saga(what: object) -> TypeGuard[SagaDef[..., Any]]:
    """Whether it is a saga."""
    return isinstance(what, SagaDef)


def takes_arguments(undo: Callable[..., Any]) -> bool:
    """Whether a compensation takes the step's own arguments after its result."""
    parameters = positional(undo)
    return len(parameters) > 1 or any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)


def check_parameters(fn: Callable[..., Any], step: Callable[..., Any], *, result: bool, what: str) -> None:
    """Refuse a compensation or probe that cannot be called with the arguments it will be given."""
    mine, theirs = positional(fn), positional(step)
    where = f"{what} ({place_of(fn)})"
    _check_named(fn, step, result=result, where=where)
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in mine):
        return
    required = [parameter for parameter in mine if parameter.default is inspect.Parameter.empty]
    names = ", ".join(parameter.name for parameter in theirs)
    if result:
        if not mine:
            raise DefinitionError(
                f"{where} takes no parameter; it is called with the step's result, or with the result and {names}"
            )
        if len(mine) != 1 and len(mine) != len(theirs) + 1:
            raise DefinitionError(
                f"{where} takes {len(mine)} positional parameters",
                f"Give it one (the step's result) or {len(theirs) + 1} (the result, {names})",
            )
    elif len(required) > len(theirs) or len(mine) < len(theirs):
        raise DefinitionError(
            f"{where} takes {len(mine)} positional parameters", f"Give it the step's own: {names or 'none'}"
        )


def _check_named(fn: Callable[..., Any], step: Callable[..., Any], *, result: bool, where: str) -> None:
    """Refuse a function that needs a keyword argument which it will not be given."""
    own = frozenset(inspect.signature(step).parameters) if not result or takes_arguments(fn) else frozenset[str]()
    resources = resources_of(fn)
    for name, parameter in inspect.signature(fn).parameters.items():
        needed = parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty
        if needed and name not in resources and name not in own:
            raise DefinitionError(
                f"{where} needs {name!r}, which it is not given",
                "Take it as one of the step's own arguments, or from the orchestrator with `= resource()`",
            )


def admits_unknown(undo: Callable[..., Any]) -> bool:
    """Whether the annotation of a compensation's first parameter admits ``Unknown``."""
    parameters = positional(undo)
    annotation: Any = parameters[0].annotation if parameters else None
    if isinstance(annotation, str):
        try:
            annotation = inspect.signature(undo, eval_str=True).parameters[parameters[0].name].annotation
        except (NameError, TypeError, AttributeError, SyntaxError):
            return "Unknown" in [part.strip() for part in annotation.split("|")]
    if get_origin(annotation) in (Union, types.UnionType):
        return Unknown in get_args(annotation)
    return annotation is Unknown
