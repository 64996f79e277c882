"""The seams of the engine: what it needs of a store, a clock and a source of ids, and nothing more."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, Protocol

import attrs

from durable_core.model.checkup import Checkup
from durable_core.model.entry import ROLES, Entry, EntryKind, Role
from durable_core.model.run import NewRun, RunQuery, RunRecord, RunRef, RunUpdate
from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.model.version import Announced, Offer, Tally


@attrs.frozen
class Signal:
    """A signal left in the store for a run's owner by a process that does not drive it."""

    num: int
    """The signal's own number, by which a batch consumes it."""
    run: int
    name: str
    payload: bytes
    at_ns: int = 0
    """When it was left, in ns since the epoch, by its sender's clock."""

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
        """This batch without what the runs in ``signalled`` decided before they heard the signal that waits for them.

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


class SpanLedger(Protocol):
    """What a store knows of the spans that are still to be exported: how far each worker's entries have been.

    A worker that exports owes the spans of its own entries, and of those that a dead worker left owing. Entries of one
    worker are committed one batch after the other, so that a position among its own is a safe place to go on from, also
    where the batches of several workers are committed in another order than they took their positions.
    No position is handed out twice, whatever has been deleted meanwhile.
    """

    async def owe(self, worker: str) -> int:
        """From here on the spans of ``worker``'s entries are owed; the position after which they begin. Durable."""
        ...

    async def owed(self, worker: str) -> dict[str, int]:
        """The positions up to which entries have been exported, of ``worker`` and of debtors that live no more."""
        ...

    async def adopt(self, debtor: str, *, worker: str) -> bool:
        """Let ``worker`` alone pay what ``debtor`` owes, as long as it lives; False where a living one does already."""
        ...

    async def pay(self, worker: str, pos: int | None) -> None:
        """The entries of ``worker`` up to ``pos`` have been exported; None: all of them, and it owes no more."""
        ...

    async def written(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """The first entries of ``worker`` after a position, each with its own, in the order of its commits."""
        ...

    async def unbegun_since_ns(self) -> int | None:
        """When the oldest run was made that no worker has begun; None where there is none. Paused ones do not count."""
        ...

    async def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """The runs of these numbers, in no order; unknown ones are left out."""
        ...


class Store(SpanLedger, Protocol):
    """Where runs and their journals live. One instance serves one engine, on its event loop.

    Every method may raise ``StoreError``; ``StoreError.transient`` says whether it is worth asking again.
    """

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the store: the tokens of callbacks derive from them. Known once it is open."""
        ...

    async def open(self, *, worker: str | None) -> None:
        """Make the schema where there is none, check it where there is, and announce ``worker`` as alive.

        Runs of workers found dead are released: without owner and due at once.
        """
        ...

    async def close(self) -> None:
        """Release everything; the worker is no longer alive. Safe to call twice."""
        ...

    def lease_is_safe(self) -> bool:
        """Whether nobody can take this worker for dead in the next moments; always so where there are no leases.

        No step begins otherwise. Judged by a clock that never jumps, with a margin of a fifth of the lease.
        """
        ...

    async def rejoin(self, worker: str) -> None:
        """Announce this store's worker again, as ``worker``, after a ``LeaseLost``. It owns nothing then."""
        ...

    def ahead_ns(self) -> int:
        """How far the store's clock is ahead of this machine's; 0 where they are the same."""
        ...

    async def last_seen_ns(self) -> int | None:
        """The last time that was written here: of the newest run or entry. None where nothing was; quick.

        A process whose clock says less begins there.
        """
        ...

    def next_num(self) -> int:
        """A run number that no other process of this store will ever hand out, rising within this process."""
        ...

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Write ``batch`` in one transaction; it is on disk on return.

        Returns the numbers of the runs of which something was left out: starts whose id is taken, and runs that a
        signal has overtaken. In the same transaction: no beginning and no end of a run commits over a signal that
        waits for it and is not consumed by this batch; see ``Batch.yielding``.
        """
        ...

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """Take up to ``limit`` unowned open runs that are due, the longest due first, and make them ``worker``'s.

        Only runs of a ``(name, version)`` in ``served``, and no paused ones.
        """
        ...

    async def release_dead(self) -> int:
        """Release the runs of workers that died since; return how many runs became free."""
        ...

    async def next_wake_ns(self, *, after_ns: int) -> int | None:
        """When the first unowned open run after that time falls due; None where no such time is set."""
        ...

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of these runs, each by ``seq``; a run without entries has an empty list."""
        ...

    async def announce(self, offers: Collection[Offer], *, now_ns: int) -> list[Offer]:
        """Note that this store's worker serves these, until it leaves or is found dead; durable on return.

        Returns what they have replaced: the former offers of the same name and version, where both have a fingerprint
        and it is another one. What is known already costs nothing.
        """
        ...

    async def announced(self) -> list[Announced]:
        """All versions that any worker has ever announced, by name and version, with the living who serve them."""
        ...

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        """The runs that wait in vain, the longest due first: what ``claim`` could take if any living worker served it.

        Quick where there is none, however many runs wait for a later time.
        """
        ...

    async def tally(self, name: str | None = None) -> list[Tally]:
        """How many runs there are of each name, version, status and phase, in this order; of one name where given."""
        ...

    async def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """The runs of these ids, in no order; unknown ids are left out."""
        ...

    async def find_num(self, num: int) -> RunRecord | None:
        """The run of this number; None where there is none."""
        ...

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """Runs that ``query`` describes, newest (largest number) first."""
        ...

    async def count(self, query: RunQuery) -> int:
        """How many runs ``query`` describes; its limit is ignored."""
        ...

    async def signal(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool = False) -> bool:
        """Leave a signal for ``run``; durable on return. An unowned run becomes due at once.

        False, and nothing is left, where the run has ended, unless ``ended`` says that it is meant for an ended one,
        which it then opens again in the same commit; and where it was purged. An opened run stays with its owner where
        that worker lives: an attempt of it has not returned there.
        """
        ...

    async def signals(self, runs: Collection[int]) -> list[Signal]:
        """The signals waiting for these runs, oldest first. They stay until a batch consumes them."""
        ...

    async def changed(self) -> bool:
        """Whether another connection has committed since the last call: a cheap reason to look."""
        ...

    def on_change(self, call: Callable[[], None]) -> None:
        """Have ``call`` made, on the event loop, as soon as this store hears that another one has written.

        One that hears nothing by itself never makes it, and what is heard may be little: ``changed`` must be asked
        all the same. May be said before ``open``.
        """
        ...

    async def check_up(self, *, now_ns: int, deep: bool) -> Checkup:
        """Look at the store from outside, as it stands at ``now_ns``; it need not be open, and nothing is changed.

        Raises nothing for a store that cannot be opened or read: a finding says why. ``deep`` reads all of it.
        """
        ...

    # -- purging: each call is one short transaction, so that other writers wait no longer than for a commit --------

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """Up to ``limit`` runs that ended before that time, the longest ended first.

        Args:
            before_ns: exclusive.
            name: only runs of this function.
            after: only those that come after this one in that order: the next page.
            limit: at most so many.
        """
        ...

    async def bury(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """Put tombstones in the place of these runs and of the signals left for them; durable on return.

        An id is at every moment that of a run or of a tombstone: a start beside this gets the run, or is refused.
        Returns the numbers of those that were buried: a run that no longer stands as it was found is left alone, and
        where it would take long, the rest of ``runs`` is. Their journals are left to ``sweep``.

        Args:
            runs: as ``ended`` found them.
            now_ns: when they are purged.
            until_ns: when their tombstones may be forgotten; None is never.
        """
        ...

    async def sweep(self, *, limit: int) -> Swept:
        """Remove up to ``limit`` entries from the journals of buried runs, fewer where it would take long."""
        ...

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """The tombstones of these ids, in no order; an id that has none is left out."""
        ...

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """Drop up to ``limit`` tombstones whose time has come; their ids are free again. Returns how many."""
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

    def enter(self, told: Callable[[], tuple[int, int, bool]], now_ns: Callable[[], int]) -> Any:
        """Make a step's span the current one for the code that runs in this context; returns what ``leave`` wants.

        ``told`` says its trace id, its span id and whether it is exported. It is called once the code asks: most steps
        do not, and the ids cost as much as all else that is done here. ``now_ns`` dates what the code says.
        """
        ...

    def leave(self, token: Any) -> bytes | None:
        """The step is over; what its code has said on its span, as ``durable_core.model.said`` has it."""
        ...


class Timer(Protocol):
    """A call that a clock will make, unless cancelled first."""

    def cancel(self) -> None:
        """Do not make the call. Safe to repeat, and after the call."""
        ...


class Clock(Protocol):
    """Time, as runs see it: waits, retry delays, deadlines and step timeouts."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, never going backwards within a process."""
        ...

    def call_at(self, at_ns: int, call: Callable[[], None]) -> Timer:
        """Call ``call`` on the event loop once ``now_ns()`` has reached ``at_ns``."""
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
