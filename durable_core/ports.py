"""The engine's ports: what it needs from a store, a clock and a source of ids, and nothing more.

A ``Store`` has seven parts, such as ``store.journal``; code that needs one part takes that part's protocol.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import attrs

from durable_core.model.entry import ROLES, Entry, EntryKind, Role
from durable_core.model.run import NewRun, RunQuery, RunRecord, RunRef, RunUpdate
from durable_core.model.spec import StepSpec
from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.model.version import Announced, Offer, Tally

if TYPE_CHECKING:
    from durable_core.model.checkup import Checkup


@attrs.frozen
class Signal:
    """A signal stored for a run's owner by a process that does not drive the run."""

    num: int
    """The signal's own number, by which a batch consumes it."""
    run: int
    name: str
    payload: bytes
    at_ns: int = 0
    """When it was sent, in ns since the epoch, by its sender's clock."""

    @staticmethod
    def stored(verb: str, since: int, label: str) -> str:
        """``name`` for a verb; with a label it changes what is replayed, from the journal entry ``since`` on."""
        return f"{verb} {since} {label}" if label else verb

    @property
    def verb(self) -> str:
        """What it asks for."""
        return self.name.partition(" ")[0]

    @property
    def since(self) -> int:
        """The journal entry from which on all is void; 0 without a label."""
        return int(self.name.split(" ", 2)[1]) if " " in self.name else 0

    @property
    def label(self) -> str:
        """The given-up step to attempt again, or ``abandon``; else empty."""
        return self.name.split(" ", 2)[2] if " " in self.name else ""


BEGINNINGS = frozenset({EntryKind.STARTED.value, EntryKind.RETRIED.value, EntryKind.REOPENED.value})
"""Entries after whose commit a step is called: intents."""


@attrs.define
class Batch:
    """What one commit writes: all of it or nothing, but for two exceptions that the commit reports.

    The rows of a start whose id is already taken, by a run or by a tombstone, are left out, together with the entries
    and updates of its number. And where a signal waits in the store for a run that would begin an attempt or end, what
    that run decided without it is left out: see ``yielding``.
    """

    starts: list[NewRun] = attrs.field(factory=list[NewRun])
    entries: list[Entry] = attrs.field(factory=list[Entry])
    updates: dict[int, RunUpdate] = attrs.field(factory=dict[int, RunUpdate])
    """By run number; applied after the starts."""
    consumed: list[int] = attrs.field(factory=list[int])
    """Numbers of signals that these entries take up."""
    taken: dict[int, tuple[int, int]] = attrs.field(factory=dict[int, tuple[int, int]])
    """Of consumed signals that entries of this batch take up: the run, and the last of these entries."""

    def __len__(self) -> int:
        return len(self.starts) + len(self.entries) + len(self.updates) + len(self.consumed)

    def without(self, refused: Collection[int]) -> "Batch":
        """This batch without the rows of the runs numbered in ``refused``."""
        return Batch(
            starts=[start for start in self.starts if start.num not in refused],
            entries=[entry for entry in self.entries if entry.run not in refused],
            updates={num: update for num, update in self.updates.items() if num not in refused},
            consumed=self.consumed,
            taken=self.taken,
        )

    def deciding(self) -> set[int]:
        """The runs that begin an attempt or end with this batch: a signal that waits for one of them comes first."""
        begun = {entry.run for entry in self.entries if entry.kind in BEGINNINGS}
        return begun | {num for num, update in self.updates.items() if update.ended_at_ns is not None}

    def yielding(self, signalled: Collection[int]) -> "tuple[Batch, frozenset[int]]":
        """This batch without what the runs in ``signalled`` decided before they saw the signal that waits for them.

        Kept of such a run is everything up to the last input that it had not yet answered with a beginning or an end:
        what happened in the world is never left out on its account. Its row is left as it is.

        Returns:
            The batch, and the runs of which something was left out.
        """
        overtaken = self.deciding().intersection(signalled) if signalled else None
        if not overtaken:
            return self, frozenset()
        until = {num: _undecided_until(self.entries, num) for num in overtaken}
        late = {num for num, (run, seq) in self.taken.items() if run in until and seq > until[run]}
        kept = Batch(
            starts=self.starts,
            entries=[entry for entry in self.entries if entry.run not in until or entry.seq <= until[entry.run]],
            updates={num: update for num, update in self.updates.items() if num not in overtaken},
            consumed=[num for num in self.consumed if num not in late],
            taken={num: place for num, place in self.taken.items() if num not in late},
        )
        return kept, frozenset(overtaken)


def _undecided_until(entries: Sequence[Entry], num: int) -> int:
    """The last of the run's entries before its first beginning or end, and before the outputs that come with that."""
    until = 0
    for entry in entries:
        if entry.run != num:
            continue
        if entry.kind in BEGINNINGS or entry.kind == EntryKind.ENDED:
            break
        if ROLES[EntryKind(entry.kind)] is Role.INPUT:
            until = entry.seq
    return until


class Journal(Protocol):
    """Writes runs and their entries, and reads journals back."""

    def next_num(self) -> int:
        """A run number that no process of this store ever uses again. Numbers rise within a process."""
        ...

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Write ``batch`` in one transaction; it is on disk on return.

        Returns the numbers of the runs of which something was left out: starts whose id is taken, and runs that a
        signal has overtaken. In the same transaction: no beginning and no end of a run commits over a signal that
        waits for it and is not consumed by this batch; see ``Batch.yielding``.
        """
        ...

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of these runs, each by ``seq``; a run without entries has an empty list."""
        ...


class Runs(Protocol):
    """Finds and lists runs."""

    async def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """The runs with these ids, in any order; unknown ids are left out."""
        ...

    async def find_num(self, num: int) -> RunRecord | None:
        """The run with this number; None if there is none."""
        ...

    async def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """The runs with these numbers, in any order; unknown numbers are left out."""
        ...

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """The runs that match ``query``, in the order of their start, the newest first unless it says otherwise."""
        ...

    async def count(self, query: RunQuery) -> int:
        """How many runs match ``query``; its limit and its cursor are ignored."""
        ...

    async def restarts(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """The ids of the runs that begin runs of these ids again, in the order of their start; by the latter's id."""
        ...

    async def next_wake_ns(self, *, after_ns: int) -> int | None:
        """The first time after ``after_ns`` at which an unowned open run falls due; None if there is none."""
        ...

    async def unbegun_since_ns(self) -> int | None:
        """When the oldest run was created that no worker has begun; None if there is none. Paused runs do not count."""
        ...

    async def last_seen_ns(self) -> int | None:
        """The newest time in the store: that of its newest run or entry; None in an empty store. Quick.

        A process whose clock is behind that time continues from it.
        """
        ...


class Claims(Protocol):
    """Gives runs to workers, and takes them back from dead ones."""

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """Assign up to ``limit`` unowned open runs that are due to ``worker``, the longest due first.

        Only runs of a ``(name, version)`` in ``served``, and no paused ones.
        """
        ...

    async def release_dead(self) -> int:
        """Release the runs of workers that have died; return how many runs became free."""
        ...


class Signals(Protocol):
    """Carries signals to the owners of runs."""

    async def send(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool = False) -> bool:
        """Store a signal for ``run``; durable on return. An unowned run becomes due at once.

        Returns False, and stores nothing, if the run has ended or was purged. With ``ended`` the signal is for an ended
        run too, and opens it again in the same commit. The run keeps its owner if that worker is alive, because an
        attempt of the run has not returned there yet.
        """
        ...

    async def waiting(self, runs: Collection[int]) -> list[Signal]:
        """The signals stored for these runs, oldest first. They stay until a batch consumes them."""
        ...


class Versions(Protocol):
    """Which versions workers serve, and which runs each version has."""

    async def announce(self, offers: Collection[Offer], *, now_ns: int) -> list[Offer]:
        """Record that this store's worker serves these, until it leaves or is found dead; durable on return.

        Returns the offers that these have replaced: same name and version, and both have a fingerprint, which differs.
        Announcing what is already recorded costs nothing.
        """
        ...

    async def announced(self) -> list[Announced]:
        """All versions that any worker has ever announced, by name and version, with the live workers serving each."""
        ...

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        """The due runs that no worker serves, the longest due first: ``claim`` would take them if a live worker did.

        Quick if there are none, however many runs wait for a later time.
        """
        ...

    async def tally(self, name: str | None = None) -> list[Tally]:
        """Run counts by name, version, status and phase, in this order; only for ``name`` if given."""
        ...


class Retention(Protocol):
    """Purges ended runs. Each call is one short transaction: other writers wait no longer than for a commit."""

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """Up to ``limit`` runs that ended before that time, the longest ended first.

        Args:
            before_ns: exclusive.
            name: only runs of this function.
            after: only runs that follow this one in that order: the next page.
            limit: at most so many.
        """
        ...

    async def purge(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """Replace these runs with tombstones, and remove the signals stored for them; durable on return.

        At every moment an id belongs to a run or to a tombstone: a concurrent start either finds the run or is refused.
        Returns the numbers of the purged runs. A run that has changed since it was found is left alone, and so is the
        rest of ``runs`` when the call takes too long. ``sweep`` removes the journals.

        Args:
            runs: as ``ended`` found them.
            now_ns: the time of the purge.
            until_ns: when their tombstones may be removed; None is never.
        """
        ...

    async def sweep(self, *, limit: int) -> Swept:
        """Remove up to ``limit`` entries from the journals of purged runs; fewer when the call takes too long."""
        ...

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """The tombstones of these ids, in any order; an id without one is left out."""
        ...

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """Remove up to ``limit`` expired tombstones, which frees their ids. Returns how many."""
        ...


class SpanCursors(Protocol):
    """How far the spans of each worker's entries have been exported.

    A worker exports the spans of its own entries, and of those that a dead worker has not exported. Entries of one
    worker are committed one batch after the other, so a position among its own entries is safe to continue from, even
    if the batches of several workers are committed in another order than they took their positions.
    No position is used twice, even after deletions.
    """

    async def start(self, worker: str) -> int:
        """Open the cursor of ``worker``, unless it has one; its position: later entries are to export. Durable."""
        ...

    async def cursors(self, worker: str) -> dict[str, int]:
        """The positions up to which entries were exported: of ``worker``, and of workers that are no longer alive."""
        ...

    async def take_over(self, dead: str, *, worker: str) -> bool:
        """Reserve a dead worker's cursor for ``worker`` while that is alive; False if another live one has it."""
        ...

    async def advance(self, worker: str, pos: int | None) -> None:
        """Record that the entries of ``worker`` up to ``pos`` were exported; None removes the cursor: all were."""
        ...

    async def read(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """The first entries of ``worker`` after a position, each with its own, in the order of its commits."""
        ...


def check_cancelled() -> None:
    """End a task whose cancellation was absorbed; called once a turn by tasks that never end by themselves.

    Raises:
        asyncio.CancelledError: the current task was asked to end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Store(Protocol):
    """Where runs and their journals live. One instance serves one engine, on its event loop.

    Every method of a store and of its parts may raise ``StoreError``; ``StoreError.transient`` says whether to retry.

    A method that commits may absorb the cancellation of its caller and return, as a commit cannot be taken back. A task
    that goes on after it calls ``check_cancelled``.
    """

    @property
    def journal(self) -> Journal:
        """Commits batches and loads journals."""
        ...

    @property
    def runs(self) -> Runs:
        """Finds and lists runs."""
        ...

    @property
    def claims(self) -> Claims:
        """Gives runs to workers."""
        ...

    @property
    def signals(self) -> Signals:
        """Carries signals."""
        ...

    @property
    def versions(self) -> Versions:
        """Knows which versions workers serve."""
        ...

    @property
    def retention(self) -> Retention:
        """Purges ended runs."""
        ...

    @property
    def spans(self) -> SpanCursors:
        """Knows which spans were exported."""
        ...

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the store: callback tokens derive from them. Available once the store is open."""
        ...

    async def open(self, *, worker: str | None) -> None:
        """Create the schema if there is none, check it if there is one, and register ``worker`` as alive.

        Runs of workers found dead are released: they have no owner and are due at once.
        """
        ...

    async def close(self) -> None:
        """Release everything; the worker is no longer alive. Does nothing if the store is not open."""
        ...

    async def rejoin(self, worker: str) -> None:
        """Register this store's worker again, as ``worker``, after a ``LeaseLost``. It owns nothing then.

        Whatever its former name still owns has no owner any more, and is due at once.
        """
        ...

    def lease_is_safe(self) -> bool:
        """Whether nobody can take this worker for dead in the next moments; always true in a store without leases.

        No step begins otherwise. Judged by a clock that never jumps, with a margin of a fifth of the lease.
        """
        ...

    def ahead_ns(self) -> int:
        """How far the store's clock is ahead of this machine's; 0 if they are the same."""
        ...

    async def changed(self) -> bool:
        """Whether another connection has committed since the last call: a cheap reason to look."""
        ...

    def on_change(self, call: Callable[[], None]) -> None:
        """Call ``call`` on the event loop as soon as this store is notified that another one has written.

        A store without notifications never calls it, and notifications may be lost: poll ``changed`` in any case. May
        be called before ``open``.
        """
        ...

    async def check_up(self, *, now_ns: int, deep: bool) -> "Checkup":
        """Examine the store from outside, as of ``now_ns``; it need not be open, and nothing is changed.

        Raises nothing if the store cannot be opened or read: a finding says why. ``deep`` reads all of it.
        """
        ...


class MeasureSink(Protocol):
    """Takes measurements out of the process."""

    def record(self, measure: Any) -> None:
        """Count or record one thing; quick. See ``durable_core.tracing.counting``."""
        ...


class TraceContext(Protocol):
    """What a tracing library is asked for while runs begin and their steps run."""

    def origin(self, uid: bytes, name: str, mode: Literal["link", "join"]) -> str | None:
        """What a run that begins here stores of its trace; see ``NewRun.traceparent``."""
        ...

    def enter(self, identify: Callable[[], tuple[int, int, bool]], now_ns: Callable[[], int]) -> Any:
        """Make a step's span the current one for the code that runs in this context; returns what ``leave`` wants.

        ``identify`` returns its trace id, its span id and whether it is exported. It is called once the code asks: most
        steps do not, and the ids cost as much as all else that is done here. ``now_ns`` dates what the code says.
        """
        ...

    def leave(self, token: Any) -> bytes | None:
        """The step is over; what its code has said on its span, as ``durable_core.model.said`` has it."""
        ...


class MortalWorker(Protocol):
    """What a test's faults may do to the worker that makes an attempt."""

    @property
    def clock(self) -> "Clock":
        """Its clock."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Its event loop."""
        ...

    def die(self) -> None:
        """End it as the death of its process would, and open the next one; called on its loop."""
        ...


class AttemptFaults(Protocol):
    """What a test has go wrong in attempts. An engine that was given none asks nothing."""

    def function(self, spec: StepSpec, key: str, worker: MortalWorker) -> Callable[..., Any]:
        """The function to call in an attempt of the step at ``key``, instead of the step's own."""
        ...


class Timer(Protocol):
    """A call that a clock will make, unless cancelled first."""

    def cancel(self) -> None:
        """Do not make the call. Safe to repeat, and after the call."""
        ...


class Activity(Protocol):
    """What a clock can ask an engine that uses it."""

    def working(self) -> bool:
        """Whether it writes, drives a body or claims runs just now."""
        ...

    def under_way(self) -> int:
        """Attempts that have been called and have not ended."""
        ...

    def on_threads(self) -> int:
        """Those of them that are on a thread, whether it has begun or not."""
        ...

    def progress(self) -> int:
        """A number that rises with every entry that is journalled."""
        ...


class Clock(Protocol):
    """Time, as runs see it: waits, retry delays, deadlines and step timeouts."""

    def attach(self, engine: Activity) -> None:
        """An engine that uses this clock has been entered. Only a clock that waits for idle engines needs to know."""
        ...

    def detach(self, engine: Activity) -> None:
        """An engine that was attached has been left."""
        ...

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, never going backwards within a process."""
        ...

    def call_at(self, at_ns: int, call: Callable[[], None]) -> Timer:
        """Call ``call`` on the event loop once ``now_ns()`` has reached ``at_ns``."""
        ...


@runtime_checkable
class FollowingClock(Clock, Protocol):
    """A clock that goes by itself, as this machine's does, and that an engine keeps in step with the store's.

    A clock that has no more than ``Clock`` says is left alone: a test moves it by hand, or it follows something else.
    """

    ahead_ns: int
    """How far the clock to follow is ahead of this machine's: the database's, if there is one."""

    def go_on_from(self, at_ns: int) -> None:
        """Continue from this time, which the store knows: the clock may have been set back between two processes."""
        ...


class Ids(Protocol):
    """Randomness for identities."""

    def uid(self) -> bytes:
        """16 random bytes."""
        ...

    def name(self) -> str:
        """A short random name for a run or worker that was given none."""
        ...

    def draw(self) -> float:
        """A number in [0, 1), for the jitter of a retry."""
        ...
