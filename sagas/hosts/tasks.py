"""A call of a task state as data, and what it answers: pure but for the attempt itself.

Invariant: the idempotency key depends on the execution and on the step alone, so each retry has the same one, the
compensation and the probe each their own, and no other execution has any of them.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import attrs
import msgspec
from msgspec import Raw

from durable_core import DefinitionError, PayloadError
from durable_core.layer import (
    Clocked,
    Codec,
    Done,
    DurableFunction,
    Final,
    Outcome,
    StepCall,
    StepRecord,
    StepSpec,
    after_failure,
    attempt,
    capture,
    in_words,
    rebuild,
    sentences,
)
from sagas.asl.limits import LARGEST_PAYLOAD
from sagas.check.scan import scan
from sagas.model.definition import Declared, SagaDef
from sagas.model.graph import GraphDef
from sagas.model.plan import probe_key, undo_key
from sagas.model.resource import WAY_OUT
from sagas.runtime.binding import Binder, Bound
from sagas.runtime.saga import function_of

Role = Literal["do", "undo", "probe", "callback"]
ENVELOPE = 1 << 10
"""Bytes of an answer beside its value."""
NUMBERED = re.compile(r"attempt (\d+) ")
"""How an error says which attempt it was."""


class _Sent(msgspec.Struct):
    """The fields of an event, as ``sagas.asl.calls`` has the service send them."""

    saga: str
    version: int
    step: str
    role: Role
    execution: str
    started: str = ""
    attempt: Annotated[int, msgspec.Meta(ge=0)] = 0
    arguments: dict[str, Any] = {}
    result: dict[str, Any] | None = None
    doubt: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Task:
    """What a task state asks for."""

    saga: str
    version: int
    step: str
    """The step's key."""
    role: Role
    execution: str
    """The execution's ARN."""
    started: str = ""
    """When it started: an execution's name is free again after 90 days."""
    attempt: int
    """Which attempt of the step this is, from 1."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """By the names of the parameters, or by position."""
    result: Mapping[str, Any] | None = None
    """Of a compensation: the step's result, as ``value``; None if its outcome is unknown."""
    in_doubt: bool = False
    """An earlier attempt may have happened."""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "Task":
        """Read what the service has sent.

        Raises:
            DefinitionError: it is not what an exported machine sends.
        """
        try:
            sent = msgspec.convert(event, _Sent)
        except msgspec.ValidationError as error:
            raise DefinitionError(
                f"the function was called with something that is no task of an exported graph ({error})",
                "Deploy the state machine that `sagas export asl` writes",
            ) from error
        return cls(
            saga=sent.saga,
            version=sent.version,
            step=sent.step,
            role=sent.role,
            execution=sent.execution,
            started=sent.started,
            attempt=sent.attempt + 1 + (0 if sent.doubt is None else _attempts_before(sent.doubt)),
            arguments=sent.arguments,
            result=sent.result,
            in_doubt=sent.doubt is not None,
        )

    @property
    def key(self) -> str:
        """The key of what is called: of the step, its compensation or its probe."""
        if self.role == "undo":
            return undo_key(self.step)
        return probe_key(self.step) if self.role == "probe" else self.step

    @property
    def uid(self) -> bytes:
        """What all idempotency keys of the execution derive from."""
        return hashlib.blake2b(f"{self.execution}\n{self.started}".encode(), digest_size=16).digest()

    def call(self, kind: str) -> StepCall:
        """The attempt to make; ``kind`` is that of the step."""
        served = {"undo": "compensation", "probe": "probe"}
        forward = b"" if self.result is None else msgspec.json.encode(self.result.get("value"))
        return StepCall(
            run=self.execution.rpartition(":")[2],
            uid=self.uid,
            name=self.saga,
            version=self.version,
            key=self.key,
            kind=served.get(self.role, kind),
            attempt=self.attempt,
            started_seq=0,
            args=Raw(self._stored_arguments()),
            forward=Raw(forward),
        )

    def _stored_arguments(self) -> bytes:
        """As our codec stores a call."""
        by_place = sorted((name for name in self.arguments if name.isdecimal()), key=int)
        args = [self.arguments[name] for name in by_place]
        kwargs = {name: value for name, value in self.arguments.items() if not name.isdecimal()}
        return msgspec.json.encode({"args": args, "kwargs": kwargs} if kwargs else args)


def _attempts_before(doubt: Mapping[str, Any]) -> int:
    """How many attempts were made before the state for doubtful ones took over; at least one."""
    found = NUMBERED.search(str(doubt.get("Cause", "")))
    return 1 if found is None else int(found[1])


@attrs.frozen
class Failure:
    """How an attempt failed, for the state machine."""

    error: str
    """The name by which ``Retry`` and ``Catch`` know it."""
    cause: str


def failure_of(task: Task, spec: StepSpec, done: Done) -> Failure:
    """What follows from an attempt that raised, by the rules of our engine."""
    error = rebuild(bytes(done.error), (*spec.rejects, *spec.unknown, *(spec.retry.on or ())))
    record = StepRecord(task.key, spec.kind, None, done.began)
    record.failures = task.attempt - 1
    record.unknown = task.in_doubt
    outcome, following = after_failure(
        spec, record, error, now_ns=done.at, draw=0.0, repeatable=done.repeatable, doubtful=done.doubtful
    )
    if task.in_doubt and outcome is Outcome.FAILED:
        outcome = Outcome.UNKNOWN  # sticky: what an earlier attempt may have done is not undone by this one
    what = {"undo": "the compensation of ", "probe": "the probe of "}.get(task.role, "")
    cause = f"attempt {task.attempt} of {what}step {task.step!r} failed: {in_words(error)}"
    return Failure(_name(spec, outcome, task.attempt, final=isinstance(following, Final)), cause)


def _name(spec: StepSpec, outcome: Outcome, made: int, *, final: bool) -> str:
    if outcome is Outcome.REJECTED:
        return Rejected.__name__
    retried = spec.retry.attempts != 1
    if outcome is Outcome.UNKNOWN:
        return (UnknownForGood if final and retried else Unknown).__name__
    used_up = spec.retry.attempts is not None and made >= spec.retry.attempts
    return (FailedForGood if final and retried and not used_up else Failed).__name__


# -- Errors: the service knows an error by the name of its class -------------------------------------------------------


class TaskFailed(Exception):
    """An attempt failed."""


class Rejected(TaskFailed):
    """The participant's own answer: nothing happened, and it is not asked again."""


class Failed(TaskFailed):
    """Nothing happened."""


class FailedForGood(TaskFailed):
    """Nothing happened, and the policy makes no further attempt for this exception."""


class Unknown(TaskFailed):
    """It may have happened."""


class UnknownForGood(TaskFailed):
    """It may have happened, and no further attempt is made."""


ERRORS: Mapping[str, type[TaskFailed]] = {
    each.__name__: each for each in (Rejected, Failed, FailedForGood, Unknown, UnknownForGood)
}


# -- The sagas that are served -----------------------------------------------------------------------------------------


class Served:
    """The graphs of one function, with their steps by key."""

    def __init__(self, sagas: Sequence[SagaDef[..., Any]], resources: Sequence[object], clocked: Clocked) -> None:
        self._binder = Binder(Codec(), resources)
        self._clocked = clocked
        self._functions: dict[tuple[str, int], DurableFunction] = {}
        self._steps: dict[tuple[str, int], dict[str, Bound]] = {}
        for definition in sagas:
            self._add(definition)

    def _add(self, definition: SagaDef[..., Any]) -> None:
        graph = _checked(definition, self._binder)
        named = (graph.name, graph.version)
        steps = {key: self._binder.bind(step) for key, step in _steps_of(graph, "")}
        if named in self._steps:
            raise DefinitionError(f"two sagas {graph.name!r} of version {graph.version} were given", "Give each once")
        self._steps[named] = steps
        self._functions[named] = attrs.evolve(function_of(graph, self._binder), locate=_locator(steps))

    async def answer(self, task: Task) -> Mapping[str, Any] | Failure:
        """Make the attempt that is asked for.

        Returns:
            What the state machine gets: ``value``, of a probe also ``happened``; or how it failed.

        Raises:
            DefinitionError: the saga or the step is not served here. Nothing was called.
        """
        if task.role == "callback":
            return {}
        function, bound, spec = self._find(task)
        try:
            done = await attempt(function, task.call(bound.spec.kind), self._clocked)
        except PayloadError as refused:  # arguments or a result that do not fit their types: nothing was called
            return Failure(FailedForGood.__name__, f"step {task.step!r} was not called: {in_words(refused)}")
        if not bytes(done.error) and len(bytes(done.value)) > LARGEST_PAYLOAD - ENVELOPE:
            done = _too_large(done, task)
        if bytes(done.error):
            return failure_of(task, spec, done)
        value = msgspec.json.decode(bytes(done.value))
        return value if task.role == "probe" else {"value": value}

    def _find(self, task: Task) -> tuple[DurableFunction, Bound, StepSpec]:
        """The saga, the step, and what is to be called."""
        function = self._functions.get((task.saga, task.version))
        bound = self._steps.get((task.saga, task.version), {}).get(task.step)
        spec = None
        if bound is not None:
            spec = {"do": bound.spec, "undo": bound.undo, "probe": bound.probe}.get(task.role)
        if function is None or bound is None or spec is None:
            what = f"saga {task.saga!r} version {task.version}"
            if function is not None:
                what += f", step {task.step!r}, role {task.role!r},"
            raise DefinitionError(
                f"execution {task.execution}: {what} is not served by this function; nothing was called",
                "Deploy the code from which the state machine was exported, then redrive the execution",
            )
        return function, bound, spec


def _checked(definition: SagaDef[..., Any], binder: Binder) -> GraphDef[...]:
    if not isinstance(definition, GraphDef):
        raise DefinitionError(
            f"{definition.place}: the saga {definition.name!r} is written as code, and Step Functions run graphs only",
            "Declare it as a graph: `SagaGraph(name, version=...)`",
        )
    if faults := scan(definition).faults:
        raise DefinitionError(f"graph {definition.name!r} cannot work: " + "; ".join(faults))
    if lacking := binder.lacking(definition):
        raise DefinitionError("; ".join(lacking), WAY_OUT)
    return definition


def _steps_of(graph: GraphDef[...], prefix: str) -> Iterator[tuple[str, Declared[..., Any]]]:
    """The steps of a graph and of the graphs within it, by key."""
    for node in graph.nodes:
        if isinstance(node.what_runs, Declared):
            yield prefix + node.key, node.what_runs
        elif isinstance(node.what_runs, GraphDef):
            yield from _steps_of(node.what_runs, f"{prefix}{node.key}/")


def _locator(
    steps: Mapping[str, Bound],
) -> Callable[[StepCall], tuple[StepSpec, tuple[Any, ...], dict[str, Any]] | None]:
    def locate(call: StepCall) -> tuple[StepSpec, tuple[Any, ...], dict[str, Any]] | None:
        return Binder.called(steps[call.key.partition("~")[0]], call)

    return locate


def _too_large(done: Done, task: Task) -> Done:
    refused = PayloadError(
        sentences(
            f"the result of step {task.step!r} has {len(bytes(done.value)):,} bytes, and Step Functions pass on "
            f"{LARGEST_PAYLOAD:,}",
            "Store it, and return where it is",
        )
    )
    return Done(at=done.at, began=done.began, error=Raw(capture(refused)), doubtful=True, repeatable=False)
