"""The calls that every layer offers on its runs: starting and looking, operators' verbs, answers to callbacks.

``Engine`` and ``sagas.Orchestrator`` are this client under the names and types of their users; ``Face`` says how they
differ.

Invariant: what a call reports has been committed before it returns.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import attrs
import msgspec

from durable_core.engine.callback_delivery import CallbackDelivery
from durable_core.engine.home import at_home
from durable_core.engine.registry import Rewritten
from durable_core.engine.retention import PurgeReport
from durable_core.engine.runtime import Runtime
from durable_core.engine.settings import Settings
from durable_core.engine.start import Restart, announced_version, input_again
from durable_core.engine.watch import AttentionLog
from durable_core.errors import DefinitionError, DurableError, RunExists, RunNotFound, WrongState, in_words
from durable_core.face import Face, Standing
from durable_core.model.callback import COMPLETED, FAILED, HEARTBEAT, Answer, Taken
from durable_core.model.duration import Duration, moment_of, ns_of, to_ns
from durable_core.model.info import HistoryEntry, history_of
from durable_core.model.keys import check_id
from durable_core.model.retry import duration
from durable_core.model.run import ENDS, Place, RunQuery, RunRecord, RunRef, RunStatus
from durable_core.model.shape import CallShape
from durable_core.model.tags import check_tags, write_tags
from durable_core.model.texts import check_text, is_text
from durable_core.ports import Clock, Store
from durable_core.tracing.enabled import spans_wanted

if TYPE_CHECKING:
    from durable_core.tracing.vocabulary import Vocabulary
    from durable_core.tracing.wiring import Tracing

R = TypeVar("R")
InfoT = TypeVar("InfoT")
StatusT = TypeVar("StatusT")


@attrs.frozen(kw_only=True)
class CallbackAddress:
    """Which callback an answer is for: by its token, or by its run and name."""

    token: str | None = attrs.field(default=None, repr=False)
    run_id: str | None = None
    name: str | None = None


@attrs.frozen
class AnswerReceipt:
    """The fate of an answer or heartbeat that was not refused."""

    run_id: str
    key: str
    """The callback's key in its run."""
    taken: Taken


class Identified(Protocol):
    """Whatever has the id of a run: a summary of it, or all of its info."""

    @property
    def id(self) -> str:
        """The id."""
        ...


class Client(Generic[InfoT, StatusT]):
    """The runs of one store, as the users of one layer see them.

    Args:
        url: the store's address; None if ``store`` is given.
        face: the layer's words, errors and views.
        store: a store instead of an address.
        settings: see ``Settings``.
        clock: drives waits, retry delays, deadlines and step timeouts.
        on_attention: called, at least once, when a run needs attention.
        on_rewritten: called when the body of an announced version has changed.
        log: gets a line for each reason why a run needs attention.
        tracer_provider: where spans go; None is the global one, where the program has set one.
        vocabulary: gives the layer's names for spans; called only where spans are wanted.
    """

    def __init__(
        self,
        url: str | None,
        face: Face[InfoT, StatusT],
        *,
        store: Store | None,
        settings: Settings,
        clock: Clock | None,
        on_attention: Callable[[InfoT], Awaitable[None]] | None,
        on_rewritten: Rewritten,
        log: logging.Logger,
        tracer_provider: object,
        vocabulary: "Callable[[], Vocabulary] | None" = None,
    ) -> None:
        self.face = face
        self._on_attention = on_attention
        self._attention_log = AttentionLog(log)
        self.runtime = Runtime(
            url,
            store=store,
            noun=face.noun,
            not_open=face.not_open,
            settings=settings,
            clock=clock,
            on_attention=self._attend,
            on_rewritten=on_rewritten,
            tracing=_tracing(tracer_provider, vocabulary),
        )

    # -- starting and looking --------------------------------------------------------------------------------------

    async def begin(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        id: str | None,
        version: int | None,
        deadline_ns: int | None = None,
        trace: Literal["link", "join"] = "link",
        tags: Mapping[str, str] | None = None,
    ) -> RunRef:
        """Start a run; see ``Runtime.begin``."""
        if trace not in ("link", "join"):
            raise DefinitionError(f"trace={trace!r}", "Use 'link' or 'join'")
        stored = write_tags(check_tags(tags, f"starting {name}: tags"))
        try:
            return await self.runtime.begin(
                name, args, kwargs, id=id, version=version, deadline_ns=deadline_ns, trace=trace, tags=stored
            )
        except RunExists as taken:
            raise self._taken(taken) from None

    async def begin_encoded(
        self,
        name: str,
        payload: bytes,
        *,
        id: str,
        version: int,
        deadline_ns: int | None = None,
        trace: Literal["link", "join"] = "link",
        traceparent: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RunRef:
        """Start a run with arguments that were encoded before; see ``Runtime.begin_encoded``."""
        try:
            return await self.runtime.begin_encoded(
                name,
                payload,
                id=id,
                version=version,
                deadline_ns=deadline_ns,
                trace=trace,
                traceparent=traceparent,
                tags=write_tags(tags or {}),
            )
        except RunExists as taken:
            raise self._taken(taken) from None

    async def restart(
        self,
        id: str,
        *,
        new_id: str | None = None,
        input: Mapping[str, Any] | None = None,
        version: int | None = None,
        actor: str = "",
        note: str = "",
    ) -> RunRef:
        """Begin an ended run again under a new id; durable on return. ``input`` replaces arguments by name.

        Raises:
            RunNotFound: there is no such run.
            WrongState: it has not ended, or it is a child.
            PayloadError: there is no such argument, or a value does not fit; nothing was started.
        """
        for name, text in (("actor", actor), ("note", note)):
            check_text(text, f"{name}=")
        record, child = await self.find(id)
        if child or record.status not in ENDS:
            why = f"is a part of {record.id!r}" if child else f"has not ended; it is {record.status}"
            advice = "Restart that one" if child else "Only what has ended can begin again"
            what = f"{self.face.noun} {id!r} {why}"
            raise WrongState(what, f"{advice}; nothing was started", run_id=id, status=record.status)
        runtime, name = self.runtime, record.name
        if version is None:
            version = record.version
        elif runtime.registry.find(name, version) is None:
            version = await announced_version(runtime.store, runtime.registry, name, version)
        definition = runtime.registry.find(name, version)
        payload = input_again(record, input, None if definition is None else definition.shape)
        span_ns = None if record.deadline_at_ns is None else record.deadline_at_ns - record.created_at_ns
        if new_id is not None:
            check_id(new_id)
        try:
            return await runtime.begin_encoded(
                name,
                payload,
                id=new_id,
                version=version,
                deadline_ns=span_ns,
                tags=record.tags,
                again=Restart(record.id, actor, note),
            )
        except RunExists as taken:
            raise self._taken(taken) from None

    def _taken(self, taken: RunExists) -> RunExists:
        return self.face.exists(taken.text, taken.advice, run_id=taken.run_id, purged_at_ns=taken.purged_at_ns)

    async def find(self, id: str) -> tuple[RunRecord, str]:
        """The run of this id, or the run whose child has it and the child's key.

        Raises:
            RunNotFound: there is none.
        """
        ids = self.face.candidates(id)
        found = {each.id: each for each in await self.runtime.store.runs.find(list(filter(is_text, ids)))}
        for known in ids:
            if known in found and self.face.shows(found[known]):
                return found[known], id[len(known) + 1 :]
        raise self.face.not_found(id, await self.runtime.missing(ids))

    async def ref(self, id: str) -> tuple[RunRef, str]:
        """The parts of a handle: the run, and the key of the child that the id names."""
        record, child = await self.find(id)
        if child:
            await self._described(record, child)  # refuses a child that is not there
        return RunRef(record.num, record.id, record.name, record.version), child

    async def info(self, id: str) -> InfoT:
        """A run or child in its current, durable state."""
        await asyncio.sleep(0)  # a polling loop must let other tasks run, also where SQLite answers at once
        return await self._described(*await self.find(id))

    def query(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        version: int | None = None,
        since: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
        attention: bool = False,
        after: Place | None = None,
        order: str = "newest",
    ) -> RunQuery:
        """The query for runs, from the filters of a user."""
        statuses, phases = (None, None) if status is None else self.face.query(status)
        if order not in ("newest", "oldest"):
            raise DefinitionError(f"order={order!r}", "Use 'newest' or 'oldest'")
        if since is not None and moment_of(since) is None:
            raise DefinitionError(f"since={since!r}: give a datetime with a time zone")
        return RunQuery(
            statuses=statuses,
            phases=phases,
            name=name,
            version=version,
            since_ns=None if since is None else ns_of(since),
            tags=tuple(check_tags(tags, "the tags to search for").items()),
            limit=limit,
            attention=attention,
            after=after,
            oldest_first=order == "oldest",
        )

    async def select(self, query: RunQuery) -> list[InfoT]:
        """Runs that match the query, whole, in its order; it reads their journals."""
        rows = await self.rows(query)
        journals = await self.runtime.journals([each.record.num for each in rows])
        whole = [attrs.evolve(each, entries=journals[each.record.num]) for each in rows]
        return [info for info in map(self.face.describe, whole) if info is not None]

    async def rows(self, query: RunQuery, *, after: Identified | str | None = None) -> list[Standing]:
        """Runs that match the query, in its order, without their journals; those behind ``after``, or behind its id.

        Raises:
            RunNotFound: no run has the id ``after``, and none that was purged had it.
        """
        if after is not None:
            query = attrs.evolve(query, after=await self.place_of(after if isinstance(after, str) else after.id))
        return await self._standings(await self.runtime.select(query))

    async def _standings(self, found: Sequence[RunRecord]) -> list[Standing]:
        """Runs with what is in no row of theirs: whether they are served, and begun again."""
        records = [each for each in found if self.face.shows(each)]
        unserved = await self.runtime.unserved(records)
        now_ns = self.runtime.clock.now_ns()
        ended = [each.id for each in records if each.status in ENDS]
        again = await self.runtime.store.runs.restarts(ended) if ended else {}
        return [
            Standing(
                record=each,
                shape=self._shape(each),
                unserved_at_ns=now_ns if each.num in unserved else None,
                restarted_as=tuple(again.get(each.id, ())),
            )
            for each in records
        ]

    async def pages(self, query: RunQuery, *, size: int = 100) -> AsyncIterator[list[Standing]]:
        """Every run that matches the query, page by page: one that is purged meanwhile does not break the walk."""
        while page := await self.runtime.select(attrs.evolve(query, limit=size)):
            query = attrs.evolve(query, after=page[-1].place)
            yield await self._standings(page)
            if len(page) < size:
                return

    async def place_of(self, id: str) -> Place:
        """The place of a run in the order of start, also where it has been purged.

        Raises:
            RunNotFound: no run has this id.
        """
        if is_text(id):
            for record in await self.runtime.store.runs.find([id]):
                return record.place
            for stone in await self.runtime.store.retention.tombstones([id]):
                return Place(stone.created_at_ns, stone.num)
        raise self.face.not_found(id)

    async def status_of(self, ref: RunRef, child: str) -> StatusT:
        """The status of a run; one row is read, and for a child the journal too."""
        await asyncio.sleep(0)  # as in ``info``
        record = await self._find_num(ref)
        entries = await self.runtime.journal(ref.num) if child else ()
        found = self.face.status(Standing(record=record, entries=entries, child=child))
        if found is None:
            raise self.face.not_found(f"{ref.id}/{child}")
        return found

    async def result_of(self, ref: RunRef, child: str) -> Any:
        """Wait for the end of a run; its result, or what its face raises."""
        try:
            outcome = await self.runtime.outcome(ref.num, ref.id)
        except RunNotFound as missing:
            raise self.face.not_found(ref.id, missing) from None
        standing = None
        if child or outcome.status is RunStatus.STUCK:
            standing = await self._standing(await self._find_num(ref), child)
        return self.face.outcome(ref, outcome, self._shape(ref), standing)

    async def purge(
        self, *, older_than: Duration, name: str | None, limit: int | None, archive: str | Path | None, dry_run: bool
    ) -> PurgeReport:
        """Remove runs that ended at least ``older_than`` ago; see ``Runtime.purge``."""
        age_ns = to_ns(duration(older_than, "older_than"))
        return await self.runtime.purge(
            before_ns=self.runtime.clock.now_ns() - age_ns + 1,
            name=name,
            limit=limit,
            archive=None if archive is None else str(archive),
            dry_run=dry_run,
        )

    async def _find_num(self, ref: RunRef | RunRecord) -> RunRecord:
        record = await self.runtime.store.runs.find_num(ref.num)
        if record is None:
            raise self.face.not_found(ref.id, await self.runtime.missing([ref.id]))
        return record

    def _shape(self, of: RunRecord | RunRef) -> CallShape | None:
        known = self.runtime.registry.find(of.name, of.version)
        return None if known is None else known.shape

    async def _standing(self, record: RunRecord, child: str = "") -> Standing:
        entries = await self.runtime.journal(record.num)
        (standing,) = await self._standings([record])
        return attrs.evolve(standing, entries=entries, child=child)

    async def _described(self, record: RunRecord, child: str) -> InfoT:
        info = self.face.describe(await self._standing(record, child))
        if info is None:
            raise self.face.not_found(f"{record.id}/{child}")
        return info

    async def _attend(self, run_id: str) -> None:
        """A run of this process needs attention: log each reason once, and call ``on_attention``."""
        try:
            record, child = await self.find(run_id)
            standing = await self._standing(record, child)
            info = self.face.describe(standing)
        except DurableError as error:
            line = f"{self.face.noun} {run_id!r} needs a person, and could not be read: {in_words(error)}"
            self._attention_log.once(line, run_id=run_id)
            return
        if info is None:
            return
        for line in self.face.attention(info, standing.entries, worker=self.runtime.name):
            self._attention_log.once(line, run_id=run_id)
        if self._on_attention is not None:
            await self._on_attention(info)

    # -- operators -------------------------------------------------------------------------------------------------

    async def act(self, id: str, verb: str, action: msgspec.Struct) -> bool:
        """Signal an operator's verb to a run, unless it is already as asked; durable on return.

        Returns:
            Whether it was recorded; False where it had been done already, and nothing was changed.

        Raises:
            RunNotFound: there is no such run.
            WrongState: the verb is refused in this state.
        """
        record, child = await self.find(id)
        while (recorded := await self._acted(record, child, verb, action)) is None:
            pass  # the run moved on while it was judged: look again
        return recorded

    async def _acted(self, known: RunRecord, child: str, verb: str, action: msgspec.Struct) -> bool | None:
        """Judge the verb as the run stands now, and signal it unless it is repeated; None where the run has moved on.

        The signals are read before the row and the journal, and again after them: where none was taken up in between,
        each verb that was accepted is either still waiting or in both.
        """
        runtime = self.runtime
        await runtime.flushed()
        signals = await runtime.store.signals.waiting([known.num])
        record = await self._find_num(known)
        entries = await runtime.journal(record.num)
        if [each.num for each in await runtime.store.signals.waiting([known.num])] != [each.num for each in signals]:
            return None
        paused = await runtime.will_pause(record) if verb in ("pause", "resume") else record.paused
        standing = Standing(record=record, entries=entries, child=child, paused=paused, signals=signals)
        order = self.face.judge(verb, action, standing)
        if order is None:
            return False
        signalled = await runtime.signal(record, order.name, order.payload, label=order.label, since=order.since)
        return True if signalled else None

    # -- callbacks -------------------------------------------------------------------------------------------------

    async def complete(
        self, which: CallbackAddress, value: object, *, actor: str = "", note: str = ""
    ) -> AnswerReceipt:
        """Answer a callback with ``value``; durable on return."""
        payload = self.runtime.codec.encode_ordered(value, what="the answer to a callback")
        return await self.answer(which, Answer("", COMPLETED, msgspec.Raw(payload), actor, note))

    async def fail(self, which: CallbackAddress, message: str, *, actor: str = "", note: str = "") -> AnswerReceipt:
        """Answer a callback with a failure; durable on return."""
        payload = self.runtime.codec.encode(str(message), what="the message that fails a callback")
        return await self.answer(which, Answer("", FAILED, msgspec.Raw(payload), actor, note))

    async def beat(self, which: CallbackAddress) -> AnswerReceipt:
        """Send a heartbeat for a callback; durable on return."""
        return await self.answer(which, Answer("", HEARTBEAT))

    async def answer(self, which: CallbackAddress, answer: Answer) -> AnswerReceipt:
        """Give ``answer``, encoded and without its callback's key, to this callback; durable on return."""
        self.runtime.home.check("answering a callback")  # not only the guarded calls of a layer come here
        deliveries = CallbackDelivery(self.runtime)
        if which.token is not None and which.run_id is None and which.name is None:
            record, key = await deliveries.by_token(which.token)
        elif which.token is None and isinstance(which.run_id, str) and isinstance(which.name, str):
            record, child = await self.find(which.run_id)
            key = f"{child}/{which.name}" if child else which.name
        else:
            by = f"{self.face.noun}_id= and name="
            raise DefinitionError(f"name the callback by its token, or by {by}; nothing was changed")
        answer = msgspec.structs.replace(answer, key=key)
        taken = await deliveries.give(record, answer, closed=self.face.closed)
        return AnswerReceipt(record.id, key, taken)


@at_home("_client.runtime.home")
class Handle(Generic[R, InfoT, StatusT]):
    """One run, as its starter sees it."""

    __slots__ = ("__weakref__", "_child", "_client", "_ref")

    def __init__(self, client: Client[InfoT, StatusT], ref: RunRef, child: str = "") -> None:
        self._client = client
        self._ref = ref
        self._child = child

    @property
    def id(self) -> str:
        """Its id; ``<parent id>/<step key>`` for a child."""
        return f"{self._ref.id}/{self._child}" if self._child else self._ref.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._ref.name} v{self._ref.version} {self.id!r}>"

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the end; returns what the body returned.

        The class says what it raises where there is no result.

        Args:
            timeout: how long to wait, in real time; a timedelta or seconds.

        Raises:
            TimeoutError: it has not ended in time, and goes on.
            StoreError: this process has left the store while it waited; the run goes on.
            DefinitionError: the timeout is no duration.
        """
        if timeout is None:
            return await self._client.result_of(self._ref, self._child)  # type: ignore[no-any-return]
        async with asyncio.timeout(duration(timeout, "timeout").total_seconds()):
            return await self._client.result_of(self._ref, self._child)  # type: ignore[no-any-return]

    async def status(self) -> StatusT:
        """Its current, durable status. It reads one row, so polling it is cheap.

        The status of a child is read from its root's journal.
        """
        return await self._client.status_of(self._ref, self._child)

    async def info(self) -> InfoT:
        """Its current, durable state. It reads the whole journal; see ``status``."""
        return await self._client.info(self.id)

    async def history(self) -> list[HistoryEntry]:
        """Its durable journal, oldest first."""
        entries = await self._client.runtime.journal(self._ref.num)
        prefix = f"{self._child}/"
        return history_of([entry for entry in entries if not self._child or entry.key.startswith(prefix)])


def _tracing(tracer_provider: object, vocabulary: "Callable[[], Vocabulary] | None") -> "Tracing | None":
    """Where spans go; None, and nothing is loaded for it, where spans are not wanted."""
    if not spans_wanted(tracer_provider):
        return None
    from durable_core.tracing.wiring import tracing_with  # noqa: PLC0415 - slow to import, and only spans need it

    words = {} if vocabulary is None else {"vocabulary": vocabulary()}
    try:
        return tracing_with(tracer_provider, **words)
    except TypeError as error:
        raise DefinitionError(f"{error}", "Give one of its SDK, or none") from None
