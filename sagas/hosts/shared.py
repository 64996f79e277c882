"""What all hosts share: the sagas that are served, the inputs of a run as data, and judging.

Invariant: all decisions here are functions of a run's derived row and journal.
"""

import logging
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from durable_core import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackNotFound,
    DefinitionError,
    PayloadError,
    RunStatus,
)
from durable_core.layer import (
    ENDS,
    HEARTBEAT,
    MISFIT,
    Answer,
    CallShape,
    Codec,
    Done,
    DurableFunction,
    EntryKind,
    Face,
    HostedRun,
    JournalEntry,
    Order,
    RunOutcome,
    RunRecord,
    Standing,
    effective,
    name_of,
    same,
    state_of,
)
from sagas.face import SagaFace
from sagas.model.definition import SagaDef
from sagas.model.phases import rolls_back
from sagas.model.resource import WAY_OUT
from sagas.model.verbs import OperatorAction
from sagas.runtime.binding import Binder
from sagas.runtime.saga import function_of

log = logging.getLogger("sagas")

# -- The sagas that are served -----------------------------------------------------------------------------------------


class Registry:
    """The sagas of one worker or client.

    Args:
        sagas: of each saga every version that the host still runs.
        resources: objects for the ``resource()`` parameters of steps, by type.
        serving: whether attempts are made here, so that all resources must be given.

    Raises:
        DefinitionError: a saga has faults, two have one name and version, or a resource is missing.
    """

    def __init__(
        self, sagas: Sequence[SagaDef[..., Any]] = (), resources: Sequence[object] = (), *, serving: bool
    ) -> None:
        self.codec = Codec()
        self.face: Face[Any, Any] = SagaFace(self._step_shape)
        self.functions: dict[tuple[str, int], DurableFunction] = {}
        self._binder = Binder(self.codec, resources)
        self._definitions: dict[tuple[str, int], SagaDef[..., Any]] = {}
        self._serving = serving
        for definition in sagas:
            self.add(definition)

    def add(self, definition: SagaDef[..., Any]) -> None:
        """Serve another saga; the same one again changes nothing."""
        if not isinstance(definition, SagaDef):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"{definition!r} is not a saga", "Decorate its body with @saga(name, version=...)")
        key = (definition.name, definition.version)
        known = self._definitions.get(key)
        if known is definition:
            return
        found = self._binder.scan(definition)
        if found.faults:
            raise DefinitionError(f"saga {definition.name!r} cannot work: " + "; ".join(found.faults))
        if known is not None:
            raise DefinitionError(
                f"two different sagas are named {definition.name!r} version {definition.version}: "
                f"{known.place} and {definition.place}",
                "Give one another name, or a new version",
            )
        if self._serving and (lacking := self._binder.lacking(definition)):
            raise DefinitionError(f"saga {definition.name!r}: " + "; ".join(lacking), WAY_OUT)
        self.functions[key] = function_of(definition, self._binder)
        self._definitions[key] = definition
        for warning in found.warnings:
            log.warning("saga %r: %s", definition.name, warning)

    def versions(self, name: str) -> list[int]:
        """The versions of a saga, the newest first."""
        return sorted((version for known, version in self.functions if known == name), reverse=True)

    def shape(self, name: str, version: int) -> CallShape | None:
        """How the arguments and the result of a saga are stored, where it is known here."""
        function = self.functions.get((name, version))
        return None if function is None else function.shape

    def _step_shape(self, record: RunRecord, key: str) -> CallShape | None:
        definition = self._definitions.get((record.name, record.version))
        return None if definition is None else self._binder.step_shape(name_of(key), definition)


# -- What comes in, as data --------------------------------------------------------------------------------------------


@attrs.frozen
class Returned:
    """An attempt has ended."""

    op: str
    done: Done

    def feed(self, run: HostedRun) -> None:
        """Give it to the run."""
        run.returned(self.op, self.done)


@attrs.frozen
class Cut:
    """The process of an attempt is dead: it has no outcome."""

    op: str
    at_ns: int

    def feed(self, run: HostedRun) -> None:
        """Give it to the run."""
        run.cut(self.op, self.at_ns)


@attrs.frozen
class Rang:
    """A time has come that was due at ``due_ns``; one that has been moved meanwhile changes nothing."""

    op: str
    due_ns: int
    at_ns: int

    def feed(self, run: HostedRun) -> None:
        """Give it to the run."""
        want = run.wants().get(self.op)
        if getattr(want, "due_ns", None) == self.due_ns:
            run.rang(self.op, self.at_ns)


@attrs.frozen
class Told:
    """A verb that was judged, or an answer to a callback."""

    verb: str
    payload: bytes
    at_ns: int

    def feed(self, run: HostedRun) -> None:
        """Give it to the run."""
        run.told(self.verb, self.payload, self.at_ns)


Input = Returned | Cut | Rang | Told

# -- A run as a host shows it ------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a saga is begun, beside its arguments: what the host keeps with the execution."""

    version: int | None = None
    """None: the newest that the worker serves which begins it."""
    deadline_ns: int | None = None
    """Instead of the saga's own."""
    digest: str = ""
    """Of the stored input: tells whether the same id is started with the same input again."""
    tags: dict[str, str] = {}
    """Those given at the start."""


class Snapshot(msgspec.Struct):
    """A run's row and journal, derived by a worker."""

    record: RunRecord
    entries: list[JournalEntry]

    @classmethod
    def of(cls, run: HostedRun) -> "Snapshot":
        """The run as it stands."""
        return cls(run.record, list(run.journal))

    def standing(self, shape: CallShape | None, child: str = "") -> Standing:
        """What a face reads."""
        return Standing(record=self.record, entries=self.entries, child=child, shape=shape, paused=self.record.paused)


class Ended(msgspec.Struct, frozen=True):
    """How a run has ended: what the host keeps with the end of the execution."""

    status: RunStatus
    phase: str = ""
    output: bytes | None = None
    error: bytes | None = None
    reason: str | None = None

    @classmethod
    def of(cls, record: RunRecord) -> "Ended":
        """The end that a row tells."""
        return cls(record.status, record.phase, record.output, record.error, record.reason)

    def outcome(self) -> RunOutcome:
        """What a face reads."""
        return RunOutcome(self.status, self.phase, self.output, self.error, self.reason)


def judged(face: Face[Any, Any], run: HostedRun, verb: str, payload: bytes) -> Order | None:
    """The order that a verb makes for a run as it stands now; None where it is as asked already.

    Raises:
        WrongState: the verb is refused in this state.
        PayloadError: it cannot be read, or the result that it brings is not of the step's type.
    """
    try:
        action = OperatorAction.read(verb, payload)
    except msgspec.MsgspecError as error:
        raise PayloadError(f"saga {run.record.id}: the verb {verb!r} came with what is no order: {error}") from error
    return face.judge(verb, action, Snapshot.of(run).standing(None))


def is_answered(record: RunRecord, entries: Sequence[JournalEntry], answer: Answer) -> bool:
    """Whether this very answer has been accepted already, or is a heartbeat that nobody asks for.

    Raises:
        CallbackNotFound: the saga has no such callback.
        CallbackAlreadyAnswered: another answer came first.
        CallbackClosed: the wait was given up.
    """
    state = state_of(effective(list(entries)), answer.key)
    what = f"saga {record.id}: callback {answer.key!r}"
    if state is None:
        raise CallbackNotFound(
            f"saga {record.id} has no callback {answer.key!r}; nothing was changed. Its callbacks are in its history"
        )
    if state.ended is not None:
        if same(state.ended, answer):
            return True
        if state.ended.kind == EntryKind.ANSWERED:
            raise CallbackAlreadyAnswered(f"{what} has another answer already; this one was not accepted")
        raise CallbackClosed(f"{what} was given up; the answer was not accepted")
    if rolls_back(record.phase) or record.status in ENDS:
        raise CallbackClosed(f"{what} was given up; the answer was not accepted")
    return answer.kind == HEARTBEAT and state.pulse is None


def is_misfit(entries: Sequence[JournalEntry], answer: Answer, since: int) -> bool:
    """Whether an answer to this callback was refused for its type after the entry ``since``."""
    return any(
        entry.seq > since and entry.kind == EntryKind.NOTED and entry.label == MISFIT and entry.key == answer.key
        for entry in entries
    )
