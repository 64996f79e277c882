"""Binds declared steps to one orchestrator: the specs that the engine runs, and the resources passed to them."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import attrs
import msgspec

from durable_core import DefinitionError
from durable_core.layer import (
    AttemptFaults,
    CallShape,
    Codec,
    Duration,
    StepCall,
    StepSpec,
    is_async,
    name_of,
    rebuild,
    to_ns,
)
from sagas.check.scan import Scan, scan
from sagas.model.definition import (
    Declared,
    DidNotHappen,
    Happened,
    Pivot,
    Probed,
    Retriable,
    SagaDef,
    Serving,
    Step,
    StillUnknown,
    Unknown,
    takes_arguments,
)
from sagas.model.graph import GraphDef
from sagas.model.resource import WAY_OUT, fill, lacks

Extra = dict[str, Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]
NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
RESULT = "sagas_result"


class StepFaults(AttemptFaults, Protocol):
    """What a test has go wrong in steps; see ``sagas.testing.Faults``."""

    def check(self, names: Callable[[], Iterable[str] | None]) -> None:
        """Refuse faults of steps that no saga has. ``names`` gives those there are; None where they are not known."""
        ...


class StillUnknownError(Exception):
    """A probe does not know yet; its retry policy calls it again."""


@attrs.frozen(eq=False)
class Bound:
    """A declared step, ready to run: specs for the engine, and resources by parameter."""

    declared: Declared[..., Any]
    spec: StepSpec
    extra: Extra | None
    pivot: bool = False
    undo: StepSpec | None = None
    undo_extra: Extra | None = None
    undo_takes_arguments: bool = False
    probe: StepSpec | None = None
    probe_extra: Extra | None = None


class ProbeAnswer(msgspec.Struct):
    """A probe's answer, as it is journalled."""

    happened: bool
    value: msgspec.Raw = msgspec.Raw(b"null")


class Binder:
    """Binds each declared step once."""

    def __init__(self, codec: Codec, resources: Sequence[object]) -> None:
        self._codec = codec
        self._resources = resources
        self.known: dict[Declared[..., Any], Bound] = {}
        """The steps bound so far."""
        self._known_in: dict[SagaDef[..., Any], dict[Declared[..., Any], Bound]] = {}
        self._by_spec: dict[StepSpec, Bound] = {}
        self._scans: dict[SagaDef[..., Any], Scan] = {}
        self._shapes: dict[SagaDef[..., Any], CallShape] = {}

    def bind(self, declared: Declared[..., Any]) -> Bound:
        """The specs and resources of ``declared``.

        Raises:
            DefinitionError: it has neither a compensation nor a reason for having none, or a resource is missing.
        """
        bound = self.known.get(declared)
        if bound is None:
            bound = self.known[declared] = self._bind(declared)
            self._by_spec[bound.spec] = bound
        return bound

    def of(self, spec: StepSpec | None) -> Bound | None:
        """The bound step that the engine's ``spec`` belongs to."""
        return None if spec is None else self._by_spec.get(spec)

    def scan(self, definition: SagaDef[..., Any]) -> Scan:
        """The scan of ``definition``, made once."""
        if definition not in self._scans:
            self._scans[definition] = scan(definition)
        return self._scans[definition]

    def sound(self, definition: SagaDef[..., Any]) -> Scan:
        """The scan of a saga without a fault.

        Raises:
            DefinitionError: it is no saga, or cannot work; the message has every fault.
        """
        if not isinstance(definition, SagaDef):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"{definition!r} is not a saga", "Decorate its body with @saga(name, version=...)")
        found = self.scan(definition)
        if found.faults:
            raise DefinitionError(f"saga {definition.name!r} cannot work: " + "; ".join(found.faults))
        return found

    def step_names(self, definitions: Iterable[SagaDef[..., Any]]) -> list[str] | None:
        """The names of the steps of these sagas and of their children, with ``undo`` and ``probe`` before some.

        None if a body may run steps that cannot be known before it does.
        """
        scans = [self.scan(definition) for definition in definitions]
        if not all(found.whole for found in scans):
            return None
        steps = dict.fromkeys(use.what for found in scans for use in found.uses if isinstance(use.what, Declared))
        return [name for step in steps for name in _names(step)]

    def lacking(self, definition: SagaDef[..., Any]) -> list[str]:
        """The missing resources of the steps of a saga and of its children, as far as bodies can be read."""
        declared = [use.what for use in self.scan(definition).uses if isinstance(use.what, Declared)]
        asked = [(wanted, what) for step in dict.fromkeys(declared) for wanted, what in _asks(step)]
        return [lack for wanted, what in asked for lack in lacks(wanted, self._resources, what=what)]

    def check_resources(self, definitions: Iterable[SagaDef[..., Any]]) -> None:
        """Refuse to execute sagas whose resources are missing: the first one would get stuck."""
        lacking = [f"saga {each.name!r} v{each.version}: {lack}" for each in definitions for lack in self.lacking(each)]
        if lacking:
            raise DefinitionError(
                f"this worker cannot execute its sagas, and nothing was begun: {'; '.join(lacking)}. {WAY_OUT}"
            )

    def known_in(self, definition: SagaDef[..., Any]) -> dict[Declared[..., Any], Bound]:
        """The bound steps that this saga has run here; the driver adds to them."""
        return self._known_in.setdefault(definition, {})

    def named(self, name: str, definition: SagaDef[..., Any]) -> Bound | None:
        """The one step of that name that the saga's body names or has run here; None if there is not exactly one."""
        declared = self._declared(name, definition)
        return None if declared is None else self.bind(declared)

    def step_shape(self, name: str, definition: SagaDef[..., Any]) -> CallShape | None:
        """How that step is stored, even without its resources: this process need not be a worker."""
        declared = self._declared(name, definition)
        return None if declared is None else self._step_shape(declared)

    def _step_shape(self, declared: Declared[..., Any]) -> CallShape:
        return CallShape.of(declared.fn, self._codec, exclude=declared.resources)

    def _declared(self, name: str, definition: SagaDef[..., Any]) -> Declared[..., Any] | None:
        used = (use.what for use in self.scan(definition).uses)
        found = {what for what in used if isinstance(what, Declared) and what.name == name}
        found |= {declared for declared in self.known_in(definition) if declared.name == name}
        return found.pop() if len(found) == 1 else None

    def locate(
        self, definition: SagaDef[..., Any], call: StepCall
    ) -> tuple[StepSpec, tuple[Any, ...], dict[str, Any]] | None:
        """What an attempt that came as bytes calls, and with which arguments; None where the code does not say."""
        bound = self.named(name_of(call.key), definition)
        return None if bound is None else self.called(bound, call)

    @staticmethod
    def called(bound: Bound, call: StepCall) -> tuple[StepSpec, tuple[Any, ...], dict[str, Any]]:
        """What an attempt of this step, its compensation or its probe calls, and with which arguments."""
        what = f"saga {call.run}, step {call.key!r}"
        spec, extra = bound.spec, bound.extra or {}
        if call.kind == "compensation" and bound.undo is not None:
            result: Any = Unknown(_raised(spec, bytes(call.doubt)))
            if bytes(call.forward):
                result = spec.shape.decode_result(bytes(call.forward), what=f"{what}: the result to undo")
            spec, extra = bound.undo, {RESULT: result, **(bound.undo_extra or {})}
        elif call.kind == "probe" and bound.probe is not None:
            spec, extra = bound.probe, bound.probe_extra or {}
        args, kwargs = spec.shape.decode(bytes(call.args), what=f"{what}: the arguments")
        return spec, args, {**kwargs, **extra}

    def shape_of(self, definition: SagaDef[..., Any]) -> CallShape:
        """How the arguments and the result of a saga are stored."""
        if definition not in self._shapes:
            if isinstance(definition, GraphDef):
                definition.seal()
            self._shapes[definition] = CallShape.of(definition.body, self._codec, skip=1)
        return self._shapes[definition]

    def encode(self, value: object, *, what: str) -> bytes:
        """A value as it is stored."""
        return self._codec.encode(value, what=what)

    def _bind(self, declared: Declared[..., Any]) -> Bound:
        self._check(declared)
        shape = self._step_shape(declared)
        forever = isinstance(declared, Retriable)
        spec = StepSpec(
            name=declared.name,
            kind=declared.kind,
            fn=declared.fn,
            shape=shape,
            is_async=declared.is_async,
            retry=declared.retry,
            timeout_ns=_ns(declared.timeout),
            at_most_once=declared.at_most_once,
            rejects=declared.rejects,
            unknown=declared.unknown,
            effect=declared.effect and not forever,
            settles=declared.settles,
            surfaces_unknown=declared.effect,
        )
        extra = self._extra(declared.resources, declared.what)
        undo = probe = undo_extra = probe_extra = None
        takes = False
        if isinstance(declared, Step) and declared.compensating is not None:
            takes = takes_arguments(declared.compensating.fn)
            undo = self._undo_spec(declared, declared.compensating, shape, takes=takes)
            undo_extra = self._extra(declared.compensating.resources, f"the compensation of {declared.what}")
        if isinstance(declared, Probed) and declared.probing is not None:
            probe = self._probe_spec(declared, declared.probing, shape)
            probe_extra = self._extra(declared.probing.resources, f"the probe of {declared.what}")
        return Bound(declared, spec, extra, isinstance(declared, Pivot), undo, undo_extra, takes, probe, probe_extra)

    def _check(self, declared: Declared[..., Any]) -> None:
        if isinstance(declared, Step) and declared.compensating is None and not declared.compensated_by_nothing:
            raise DefinitionError(
                f"{declared.what} has no compensation, so a rollback could not undo it",
                f"Declare one with `@{declared.fn.__name__}.compensate`, or say `@step(compensation=None, "
                "because=...)`; a step that changes nothing is a `@lookup`",
            )

    def _extra(self, wanted: dict[str, Any], what: str) -> Extra | None:
        return fill(wanted, self._resources, what=what) if wanted else None

    def _undo_spec(self, declared: Step[..., Any], serving: Serving, shape: CallShape, *, takes: bool) -> StepSpec:
        fn = serving.fn
        complete = _completer(shape.signature, fn) if takes else None
        resources = serving.resources

        def undo(*args: Any, sagas_result: Any, **kwargs: Any) -> Any:
            if complete is None:
                return fn(sagas_result, *args, **kwargs)
            extra = {name: kwargs.pop(name) for name in resources}
            args, kwargs = complete(args, kwargs)
            return fn(sagas_result, *args, **kwargs, **extra)

        return StepSpec(
            name=declared.name,
            kind="compensation",
            fn=undo,
            shape=shape.returning(Any) if takes else CallShape.of(_nothing, self._codec),
            is_async=is_async(fn),
            retry=serving.retry,
            timeout_ns=_ns(serving.timeout),
            effect=False,  # retried under its own key until it succeeds, so an unknown outcome changes nothing
        )

    def _probe_spec(self, declared: Probed[..., Any], serving: Serving, shape: CallShape) -> StepSpec:
        asynchronous = is_async(serving.fn)
        answer = _answerer(declared, shape)
        complete = _completer(shape.signature, serving.fn)

        def probe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            extra = {name: kwargs.pop(name) for name in serving.resources}
            args, kwargs = complete(args, kwargs)
            return serving.fn(*args, **kwargs, **extra)

        async def ask_async(*args: Any, **kwargs: Any) -> ProbeAnswer:
            return answer(await probe(args, kwargs))

        def ask(*args: Any, **kwargs: Any) -> ProbeAnswer:
            return answer(probe(args, kwargs))

        return StepSpec(
            name=declared.name,
            kind="probe",
            fn=ask_async if asynchronous else ask,
            shape=shape.returning(ProbeAnswer),
            is_async=asynchronous,
            retry=serving.retry,
            timeout_ns=_ns(serving.timeout),
            effect=False,
        )


def _raised(spec: StepSpec, stored: bytes) -> BaseException | None:
    """What an attempt of the step raised; None where it is not known."""
    return rebuild(stored, (*spec.rejects, *spec.unknown)) if stored else None


def _names(declared: Declared[..., Any]) -> Iterator[str]:
    """The names of a step, its compensation and its probe."""
    yield declared.name
    if isinstance(declared, Step) and declared.compensating is not None:
        yield f"undo {declared.name}"
    if isinstance(declared, Probed) and declared.probing is not None:
        yield f"probe {declared.name}"


def _asks(declared: Declared[..., Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The resources of a step, its compensation and its probe, each with the name of its function."""
    yield declared.resources, declared.what
    if isinstance(declared, Step) and declared.compensating is not None:
        yield declared.compensating.resources, f"the compensation of {declared.what}"
    if isinstance(declared, Probed) and declared.probing is not None:
        yield declared.probing.resources, f"the probe of {declared.what}"


def _answerer(declared: Declared[..., Any], shape: CallShape) -> Callable[[Any], ProbeAnswer]:
    what = f"the probe of {declared.what}"

    def answer(given: Any) -> ProbeAnswer:
        match given:
            case Happened(value=value):  # pyright: ignore[reportUnknownVariableType] - of any type
                return ProbeAnswer(True, msgspec.Raw(shape.encode_result(value, what=what)))  # noqa: FBT003
            case DidNotHappen():
                return ProbeAnswer(False)  # noqa: FBT003
            case StillUnknown():
                raise StillUnknownError(f"{what} does not know yet")
            case _ if shape.admits_none_result:
                raise DefinitionError(
                    f"{what} returned {given!r}; the step's own result may be None, so the probe must return "
                    "Happened(value), DidNotHappen() or StillUnknown()"
                )
            case None:
                return ProbeAnswer(False)  # noqa: FBT003
            case value:
                return ProbeAnswer(True, msgspec.Raw(shape.encode_result(value, what=what)))  # noqa: FBT003

    return answer


def _nothing() -> None:
    """A signature without parameters."""


def _ns(span: Duration | None) -> int | None:
    return None if span is None else to_ns(span)


def _completer(
    signature: inspect.Signature, fn: Callable[..., Any]
) -> Callable[[tuple[Any, ...], dict[str, Any]], Call]:
    """How a call of the step becomes one of ``fn``, its compensation or probe: complete, with the step's own defaults.

    Args:
        signature: the step's, without its resources.
        fn: the compensation or probe. A keyword-only argument of the step that it does not take is left out.
    """
    parameters = inspect.signature(fn).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    taken = frozenset(parameter.name for parameter in parameters if parameter.kind in NAMED)

    def complete(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        return call.args, {name: value for name, value in call.kwargs.items() if takes_all or name in taken}

    return complete
