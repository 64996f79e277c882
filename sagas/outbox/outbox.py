"""``Outbox``: requests for sagas in the transaction of a session.

Invariant: everything that can be wrong with a request is found before anything is added to the session.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, Unpack, overload

import msgspec
from sqlalchemy import Connection, Engine, MetaData, exc

from durable_core import DefinitionError
from durable_core.layer import (
    Codec,
    Duration,
    StartOptions,
    SystemClock,
    SystemIds,
    Takes0,
    Takes1,
    Takes2,
    Takes3,
    caller,
    check_id,
    check_tags,
    check_text,
    check_timeout,
    to_ns,
)
from sagas.model.definition import SagaDef
from sagas.outbox import database as sql
from sagas.outbox.database import Database, on_loop
from sagas.outbox.entries import Answered, Cancelled, OutboxStats, RefusedEntry, Request, Start, Verb
from sagas.outbox.kinds import AnySession, async_engine, sync_engine
from sagas.outbox.session import NOTHING, add, check, nothing_added, plain
from sagas.outbox.tables import METADATA, OutboxRow
from sagas.runtime.binding import Binder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
EngineT = TypeVar("EngineT", bound="Engine | AsyncEngine")


class OutboxStartOptions(StartOptions, total=False):
    """The options of ``start``, beside the arguments of the saga."""

    deadline: Duration | None


class Outbox(Generic[EngineT]):
    """An outbox in the database of ``engine``: its entries are committed with the caller's own rows, or not at all.

    ``start``, ``complete_callback``, ``fail_callback`` and ``cancel`` are plain calls for a ``Session`` and for an
    ``AsyncSession``. They check what they are given and add a row to the session. Nothing is durable before the
    session's commit; after it, a worker with ``Orchestrator(outboxes=[outbox])``, or ``sagas relay``, hands the entry
    on within a second.

    The others ask the database by themselves: plain calls with an ``Engine``, awaited with an ``AsyncEngine``.

    >>> from sqlalchemy import create_engine
    >>> outbox = Outbox(create_engine("sqlite://"))
    >>> outbox.create_tables()
    >>> outbox.refused()
    []

    Args:
        engine: an engine of SQLAlchemy, of the sessions that take part. A relay has connections of its own from it, so
            it cannot be SQLite in memory where entries are to be handed on.

    Raises:
        DefinitionError: it is no engine.
    """

    metadata: MetaData = METADATA
    """The tables, for Alembic: ``sagas_outbox`` and ``sagas_outbox_relay``."""

    def __init__(self, engine: EngineT) -> None:
        if sync_engine(engine) is None:
            raise DefinitionError(
                f"an outbox was given {engine!r} for an engine", "Give what create_engine or create_async_engine makes"
            )
        self.database = Database(engine)
        """For relays."""
        self.listeners: set[Callable[[], None]] = set()
        """For relays: called, in any thread, when a session of this process has committed entries."""
        self._ids = SystemIds()
        self._clock = SystemClock()
        self._codec = Codec()
        self._binder = Binder(self._codec, ())
        sql.explain_errors(self.database.sync)

    def __repr__(self) -> str:
        return f"<Outbox {self.database.place}>"

    # -- in a session's transaction --------------------------------------------------------------------------------

    @overload
    def start(self, session: AnySession, saga: Takes0[Any], /, **options: Unpack[OutboxStartOptions]) -> str: ...
    @overload
    def start(
        self, session: AnySession, saga: Takes1[A, Any], a: A, /, **options: Unpack[OutboxStartOptions]
    ) -> str: ...
    @overload
    def start(
        self, session: AnySession, saga: Takes2[A, B, Any], a: A, b: B, /, **options: Unpack[OutboxStartOptions]
    ) -> str: ...
    @overload
    def start(
        self,
        session: AnySession,
        saga: Takes3[A, B, C, Any],
        a: A,
        b: B,
        c: C,
        /,
        **options: Unpack[OutboxStartOptions],
    ) -> str: ...
    @overload
    def start(self, session: AnySession, saga: SagaDef[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> str: ...
    @nothing_added()  # type: ignore[misc]  # P has no options; the overloads that do come first
    def start(
        self,
        session: AnySession,
        saga: Any,
        /,
        *args: Any,
        id: str | None = None,
        version: int | None = None,
        deadline: Duration | None = None,
        trace: Literal["link", "join"] = "link",
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> str:
        """Start a saga once the session commits; returns the saga's id. See ``Orchestrator.start``.

        Args:
            session: nothing is durable before its commit.
            saga: the saga itself. A name would not do: the arguments are checked here.
            *args: the body's arguments.
            id: unique in the store. Default: a random one.
            version: that of the saga, if it is given.
            deadline: instead of the saga's own, counted from the moment at which the saga is started.
            trace: how the saga's trace relates to the span that is current here: ``link`` or ``join``.
            tags: to search by; see ``Orchestrator.start``.
            **kwargs: the body's arguments.

        Raises:
            DefinitionError: the saga, its arguments, an option or the session cannot be used; nothing was added.
            PayloadError: an argument or a tag cannot be stored; nothing was added.
        """
        if not isinstance(saga, SagaDef):
            raise DefinitionError(
                f"outbox.start was given {saga!r} for a saga. {NOTHING}",
                "Give the saga itself, not its name: its arguments are checked before anything is added",
            )
        definition: SagaDef[..., Any] = saga  # pyright: ignore[reportUnknownVariableType]
        self._binder.sound(definition)
        name = definition.name
        if version not in (None, definition.version):
            raise DefinitionError(
                f"outbox.start was given saga {name!r} v{definition.version} and version={version!r}. {NOTHING}",
                "Give the saga of the version to start",
            )
        if trace not in ("link", "join"):
            raise DefinitionError(f"trace={trace!r}. {NOTHING}", "Use 'link' or 'join'")
        if id is not None:
            check_id(id)
        deadline_ns = None if deadline is None else to_ns(check_timeout(deadline, f"starting {name}: deadline") or 0)
        payload = self._binder.shape_of(definition).encode(args, kwargs, what=f"starting {name}: the arguments")
        saga_id = id or self._ids.name()
        kept = check_tags(tags, f"starting {name}: tags")
        request = Start(name, definition.version, msgspec.Raw(payload), deadline_ns, trace, kept)
        self._add(session, Verb.START, saga_id, request)
        return saga_id

    @nothing_added()
    def complete_callback(
        self,
        session: AnySession,
        token: str | None = None,
        value: object = None,
        *,
        saga_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with ``value`` once the session commits; see ``Orchestrator.complete_callback``.

        The value's type is checked when the entry is handed on. An answer that the orchestrator refuses then
        (``CallbackClosed``, ``PayloadError``, ...) is in ``refused()``.

        Args:
            session: nothing is durable before its commit.
            token: the callback's token; or give ``saga_id`` and ``name`` instead.
            value: a value of the callback's declared type.
            saga_id: the saga that waits for it.
            name: the callback's name; ``approval#2`` for a second use of the name.
            actor: the person who answers; kept in the journal.
            note: the reason; kept in the journal.

        Raises:
            DefinitionError: the callback is named neither by its token nor by ``saga_id`` and ``name``, or the session
                cannot be used; nothing was added.
            PayloadError: the value, ``actor`` or ``note`` cannot be stored; nothing was added.
        """
        payload = self._codec.encode_ordered(value, what="the answer to a callback")
        self._answer(session, Verb.COMPLETE, payload, token=token, saga_id=saga_id, name=name, actor=actor, note=note)

    @nothing_added()
    def fail_callback(
        self,
        session: AnySession,
        token: str | None = None,
        message: str = "",
        *,
        saga_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with a failure once the session commits. Otherwise as ``complete_callback``.

        Args:
            session: nothing is durable before its commit.
            token: the callback's token; or give ``saga_id`` and ``name`` instead.
            message: the reason; the saga's body sees it.
            saga_id: the saga that waits for it.
            name: the callback's name.
            actor: the person who answers; kept in the journal.
            note: the reason; kept in the journal.
        """
        payload = self._codec.encode(str(message), what="the message that fails a callback")
        self._answer(session, Verb.FAIL, payload, token=token, saga_id=saga_id, name=name, actor=actor, note=note)

    @nothing_added()
    def cancel(self, session: AnySession, id: str, *, reason: str = "", actor: str = "", note: str = "") -> None:
        """Ask for a rollback of a saga once the session commits; see ``Orchestrator.cancel``.

        Where nothing can be undone any more when the entry is handed on, it is in ``refused()``.

        Args:
            session: nothing is durable before its commit.
            id: the saga.
            reason: why; the saga's history shows it.
            actor: the person who asks; kept in the journal.
            note: a remark; kept in the journal.

        Raises:
            DefinitionError: the id or the session cannot be used; nothing was added.
            PayloadError: a text cannot be stored; nothing was added.
        """
        check_id(id)
        _check_texts(reason=reason, actor=actor, note=note)
        self._add(session, Verb.CANCEL, id, Cancelled(reason, actor, note))

    def _answer(
        self,
        session: AnySession,
        verb: Verb,
        payload: bytes,
        *,
        token: str | None,
        saga_id: str | None,
        name: str | None,
        actor: str,
        note: str,
    ) -> None:
        _check_texts(actor=actor, note=note)
        by_token = isinstance(token, str) and saga_id is None and name is None
        if not by_token and not (token is None and isinstance(saga_id, str) and isinstance(name, str)):
            raise DefinitionError(f"name the callback by its token, or by saga_id= and name=. {NOTHING}")
        for text, what in ((token, "the token"), (saga_id, "saga_id"), (name, "name")):
            if text is not None:
                check_text(text, what)
        self._add(session, verb, saga_id, Answered(msgspec.Raw(payload), token, name, actor, note))

    def _add(self, session: AnySession, verb: Verb, saga_id: str | None, request: Request) -> None:
        own = plain(session)
        check(own, self.database.sync, self.database.place)
        row = OutboxRow(
            verb=verb.value,
            saga_id=saga_id,
            request=msgspec.json.encode(request).decode(),
            traceparent=caller(),
            at_ns=self._clock.now_ns(),
        )
        add(own, row, self._committed)

    def _committed(self) -> None:
        for call in list(self.listeners):
            call()

    # -- by itself -------------------------------------------------------------------------------------------------

    @overload
    def create_tables(self: "Outbox[Engine]") -> None: ...
    @overload
    def create_tables(self: "Outbox[AsyncEngine]") -> Coroutine[Any, Any, None]: ...
    def create_tables(self) -> Any:
        """Create the tables that are not there yet; safe to repeat, and by several processes at once.

        A plain call with an ``Engine``, awaited with an ``AsyncEngine``. With Alembic: see ``metadata``.
        """
        engine = async_engine(self.database.engine)
        if engine is not None:
            return _create(engine)
        try:
            self.database.here(sql.create)
        except exc.SQLAlchemyError:
            if not self.database.here(sql.exist):
                raise
        return None

    @overload
    def refused(self: "Outbox[Engine]") -> list[RefusedEntry]: ...
    @overload
    def refused(self: "Outbox[AsyncEngine]") -> Coroutine[Any, Any, list[RefusedEntry]]: ...
    def refused(self) -> Any:
        """The entries that could not be handed on, with the reasons, in order. They hold up no other entry.

        A plain call with an ``Engine``, awaited with an ``AsyncEngine``.
        """
        return self._ask(sql.refused)

    @overload
    def retry(self: "Outbox[Engine]", *ids: int) -> int: ...
    @overload
    def retry(self: "Outbox[AsyncEngine]", *ids: int) -> Coroutine[Any, Any, int]: ...
    def retry(self, *ids: int) -> Any:
        """Have refused entries handed on again, before those that wait; durable on return, which is their number.

        A plain call with an ``Engine``, awaited with an ``AsyncEngine``.

        Args:
            *ids: numbers of ``refused()``. Default: all of them.
        """
        return self._ask(sql.retry, ids or None)

    @overload
    def drop(self: "Outbox[Engine]", *ids: int) -> int: ...
    @overload
    def drop(self: "Outbox[AsyncEngine]", *ids: int) -> Coroutine[Any, Any, int]: ...
    def drop(self, *ids: int) -> Any:
        """Delete these refused entries; durable on return, which is their number.

        A plain call with an ``Engine``, awaited with an ``AsyncEngine``.

        Args:
            *ids: numbers of ``refused()``; none are none.
        """
        return self._ask(sql.drop, ids)

    @overload
    def stats(self: "Outbox[Engine]") -> OutboxStats: ...
    @overload
    def stats(self: "Outbox[AsyncEngine]") -> Coroutine[Any, Any, OutboxStats]: ...
    def stats(self) -> Any:
        """How many entries wait, for how long the oldest one has, and how many were refused.

        A plain call with an ``Engine``, awaited with an ``AsyncEngine``.
        """
        return self._ask(sql.stats, self._clock.now_ns())

    def _ask(self, ask: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> Any:
        engine = async_engine(self.database.engine)
        if engine is not None:
            return on_loop(engine, ask, *args, **kwargs)
        return self.database.here(ask, *args, **kwargs)


async def _create(engine: "AsyncEngine") -> None:
    try:
        await on_loop(engine, sql.create)
    except exc.SQLAlchemyError:
        if not await on_loop(engine, sql.exist):
            raise


def _check_texts(**texts: str) -> None:
    for what, text in texts.items():
        check_text(text, what)
