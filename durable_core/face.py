"""How runs look to the users of one layer: its words, its errors, and how it reads a run's row and journal.

``Client`` reads the store and sends signals; a face is pure. ``durable_core`` has a face for runs, ``sagas`` one for
sagas.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol, TypeVar

import attrs
import msgspec

from durable_core.engine.waiting import RunOutcome
from durable_core.errors import RunExists, RunKilled, RunNotFound, RunStuck, without_code
from durable_core.model.entry import Entry
from durable_core.model.info import plain_input
from durable_core.model.run import RunRecord, RunRef, RunStatus
from durable_core.model.shape import CallShape
from durable_core.ports import Signal

InfoT = TypeVar("InfoT")
StatusT_co = TypeVar("StatusT_co", covariant=True)
Phases = frozenset[str]


@attrs.frozen(kw_only=True)
class Standing:
    """The state of a run: its row, its journal, and facts that are in neither."""

    record: RunRecord
    entries: Sequence[Entry] = ()
    child: str = ""
    """The key of the child in question; empty for the run itself."""
    shape: CallShape | None = None
    """How its arguments and its result are stored, where its function is registered here."""
    unserved_at_ns: int | None = None
    """The time, where by now the run is due and no worker serves its version."""
    restarted_as: tuple[str, ...] = ()
    """The ids of the runs that begin it again."""
    paused: bool = False
    """Whether it is paused once it has taken up its waiting signals."""
    signals: Sequence[Signal] = ()
    """Signals that wait to be taken up, oldest first."""

    def read_input(self, stored: bytes) -> dict[str, Any]:
        """The arguments by name."""
        return plain_input(stored) if self.shape is None else self.shape.as_mapping(stored)

    def result_reader(self, noun: str) -> Callable[[bytes], Any]:
        """How its stored result is decoded."""
        return reader(self.shape, f"{noun} {self.record.id!r}: the result")


@attrs.frozen(kw_only=True)
class Order:
    """A verb that was accepted, as the signal that is sent to the run; see ``Runtime.signal``."""

    name: str
    payload: bytes
    label: str = ""
    since: int = 0


class Face(Protocol[InfoT, StatusT_co]):
    """The words, errors and views of one layer."""

    noun: ClassVar[str]
    """What the layer calls a run."""
    not_open: ClassVar[tuple[str, str]]
    """What it says of a call before it was entered or after it was left, and the advice."""
    exists: ClassVar[type[RunExists]]
    killed: ClassVar[type[RunKilled]]
    stuck: ClassVar[type[RunStuck]]

    def not_found(self, id: str, missing: RunNotFound | None = None) -> RunNotFound:
        """The error for a run that is not there; ``missing`` is what the runtime says about it."""
        ...

    def failed(self, ref: RunRef, outcome: RunOutcome) -> BaseException:
        """The exception of ``result()`` for a run that has failed."""
        ...

    def query(self, status: str) -> tuple[frozenset[RunStatus], Phases | None]:
        """Which runs have this status: statuses of runs, and phases where these matter.

        Raises:
            DefinitionError: there is no such status.
        """
        ...

    def status(self, standing: Standing) -> StatusT_co | None:
        """The status of the run or child; None where there is no such child. Only a child needs the journal."""
        ...

    def describe(self, standing: Standing) -> InfoT | None:
        """The run or child as its users see it; None where there is no such child."""
        ...

    def stuck_on(self, standing: Standing) -> tuple[str, ...]:
        """The keys of the steps that it is stuck on."""
        ...

    def judge(self, verb: str, action: Any, standing: Standing) -> Order | None:
        """The signal to send for an operator's verb; None if the run is already as asked.

        Raises:
            WrongState: the verb is refused in this state.
        """
        ...

    def attention(self, info: InfoT, entries: Sequence[Entry], *, worker: str) -> Iterable[str]:
        """The lines that ``worker`` logs about a run that needs attention, one for each reason."""
        ...

    def candidates(self, id: str) -> Sequence[str]:
        """The runs that an id may belong to, by their ids: itself, then the roots whose child it may be."""
        return (id,)

    def shows(self, record: RunRecord) -> bool:  # noqa: ARG002 - the core shows all
        """Whether a run belongs to this layer."""
        return True

    def closed(self, record: RunRecord) -> bool:  # noqa: ARG002
        """Whether an open run has given up its callbacks."""
        return False

    def unserved(self, standing: Standing, *, more: str = "") -> str:
        """Why a run needs attention that no worker can go on with. Not in its row: the next worker ends it."""
        record = standing.record
        before = "" if record.reason is None else f". Before that: {record.reason}"
        return (
            f"{self.noun} {record.id}: waits for version {record.version} of {record.name!r}, which no worker serves; "
            f"start a worker that has this version{more}{before}"
        )

    def outcome(self, ref: RunRef, outcome: RunOutcome, shape: CallShape | None, standing: Standing | None) -> Any:
        """The result of a run that has ended or is stuck; raises the error that describes the end where there is none.

        Args:
            ref: the run.
            outcome: its state.
            shape: how its result is stored, where its function is registered here.
            standing: given where the run is stuck, or a child is asked for.
        """
        about = f"{self.noun} {ref.id!r}"
        match outcome.status:
            case RunStatus.COMPLETED:
                return reader(shape, f"{about}: the result")(outcome.output or b"null")
            case RunStatus.STUCK:
                reason = outcome.reason or "no reason recorded"
                steps = () if standing is None else self.stuck_on(standing)
                why = self.short(ref.id, reason)
                raise self.stuck(f"{about} is stuck: {why}", run_id=ref.id, reason=reason, steps=steps)
            case RunStatus.KILLED:
                raise self.killed(f"{about} was killed by an operator; nothing was undone", run_id=ref.id)
            case _:
                raise self.failed(ref, outcome)

    def short(self, id: str, reason: str) -> str:
        """A reason for a message that names the run, and has a code, itself."""
        return without_code(reason).removeprefix(f"{self.noun} {id}: ")


def reader(shape: CallShape | None, what: str) -> Callable[[bytes], Any]:
    """How a result is decoded: by its type where that is known here, else as plain JSON."""
    return msgspec.json.decode if shape is None else partial(shape.decode_result, what=what)
