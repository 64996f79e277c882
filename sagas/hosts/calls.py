"""The calls of an orchestrator on a host, over a small port.

Invariant: only the port does input and output; what a call means is judged as on our own engine.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NoReturn, Protocol, TypeVar

import msgspec

from durable_core import (
    DefinitionError,
    HistoryEntry,
    PayloadError,
    RunStatus,
    StoreError,
)
from durable_core.layer import (
    COMPLETED,
    ENDS,
    FAILED,
    HEARTBEAT,
    Answer,
    CallShape,
    Duration,
    RunRef,
    Standing,
    SystemIds,
    check_id,
    check_tags,
    check_timeout,
    duration,
    history_of,
    is_text,
    to_ns,
)
from sagas.errors import SagaExists, SagaNotFound, Unsupported
from sagas.hosts.declared import Host
from sagas.hosts.shared import Begin, Ended, Registry, Snapshot, is_answered, is_misfit
from sagas.model.definition import SagaDef
from sagas.model.info import SagaInfo
from sagas.model.phases import SagaStatus
from sagas.model.verbs import OperatorAction

R = TypeVar("R")


class Port(Protocol):
    """What a client needs of its host."""

    async def begin(self, id: str, saga: str, input: bytes, begin: Begin) -> bool:
        """Start an execution, durably; False where the id has been used."""
        ...

    async def find(self, id: str) -> tuple[str, Begin] | None:
        """The saga of an execution and how it was begun; None where there is none."""
        ...

    async def look(self, id: str) -> Snapshot:
        """The run, as a worker derives it.

        Raises:
            SagaNotFound: there is no such execution.
            StoreError: no worker could derive it.
        """
        ...

    async def outcome(self, id: str) -> Ended:
        """Wait until the run has ended, or is stuck."""
        ...

    async def cancel(self, id: str, action: OperatorAction) -> bool:
        """Ask for a rollback; accepted by the host on return. False where the execution is closed."""
        ...

    async def tell(self, id: str, verb: str, payload: bytes) -> bool:
        """Send a verb, or an answer to a callback; durable on return. False where the execution is closed."""
        ...

    async def locate(self, token: str) -> tuple[str, str]:
        """The run and the key of the callback that has this token.

        Raises:
            CallbackNotFound: the token is forged, or of another host.
        """
        ...

    def digest(self, input: bytes) -> str:
        """Tells one input from another."""
        ...


def not_found(id: str, host: str) -> SagaNotFound:
    """The error for an id that no execution has."""
    return SagaNotFound(f"no saga has the id {id!r} on {host}", "Check the id", run_id=id)


class HostClient:
    """The calls of ``Orchestrator`` on a host. Its users import it by the name of their host.

    Args:
        port: the host.
        sagas: sagas whose arguments and results are known by type here; others are plain JSON.
    """

    host: ClassVar[Host]
    """What it cannot do."""

    def __init__(self, port: Port, sagas: Sequence[SagaDef[..., Any]] = ()) -> None:
        self._port = port
        self._registry = Registry(sagas, serving=False)
        self._ids = SystemIds()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.host.unsupported:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        async def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
            raise self._no(name, self.host.unsupported[name])

        return refuse

    def _no(self, call: str, means: str) -> Unsupported:
        return Unsupported(f"{self.host.name} has no `{call}` for sagas; nothing was changed", means)

    # -- starting and looking --------------------------------------------------------------------------------------

    async def start(
        self,
        what: SagaDef[..., R] | str,
        /,
        *args: Any,
        id: str | None = None,
        version: int | None = None,
        deadline: Duration | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> "HostHandle[R]":
        """Start a saga; its start is durable on return.

        The same ``id`` with the same saga and input returns the existing saga.

        Args:
            what: the saga, or its name.
            *args: the body's arguments.
            id: the host's own id of the execution. Default: a random one.
            version: default: that of the saga given, else the newest of those that the worker serves which begins it.
            deadline: instead of the saga's own.
            tags: part of ``SagaInfo.tags``; the host does not search by them.
            **kwargs: the body's arguments.

        Raises:
            SagaExists: the id is taken by another saga or other input.
            DefinitionError: an unknown saga, arguments that do not match its signature, or an id that cannot be used.
            PayloadError: an argument or a tag cannot be stored, or the input is too large for the host.
        """
        name, version, shape = self._named(what, version)
        id = self._ids.name() if id is None else id
        check_id(id)
        what_for = f"starting {name}: the arguments"
        if shape is not None:
            stored = shape.encode(args, kwargs, what=what_for)
        else:
            call = {"args": list(args), "kwargs": kwargs} if kwargs else list(args)
            stored = self._registry.codec.encode_ordered(call, what=what_for)
        deadline_ns = None if deadline is None else to_ns(check_timeout(deadline, f"starting {name}: deadline") or 0)
        kept = check_tags(tags, f"starting {name}: tags")
        begin = Begin(version, deadline_ns, self._port.digest(stored), kept)
        if not await self._port.begin(id, name, stored, begin):
            found = await self._port.find(id)
            if found is None or found[0] != name or found[1].digest != begin.digest:
                raise SagaExists(
                    f"the id {id!r} is taken by another saga or other input; nothing was started",
                    "Use another id",
                    run_id=id,
                )
        return HostHandle(self, id)

    def _named(self, what: SagaDef[..., Any] | str, version: int | None) -> tuple[str, int | None, CallShape | None]:
        if isinstance(what, SagaDef):
            self._registry.add(what)
            version = what.version if version is None else version
            return what.name, version, self._registry.shape(what.name, version)
        if not isinstance(what, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"{what!r} is neither a saga nor a saga's name", "Decorate its body with @saga(...)")
        known = self._registry.versions(what)
        if version is None and known:
            version = known[0]
        return what, version, None if version is None else self._registry.shape(what, version)

    async def get(self, id: str) -> "HostHandle[Any]":
        """Get the saga with this id.

        Args:
            id: the host's id of its execution; of a child ``<parent id>/<step key>``.

        Raises:
            SagaNotFound: no saga has this id.
        """
        root, child = await self._root(id)
        if child:
            await self.info(id)
        return HostHandle(self, root, child)

    async def info(self, id: str) -> SagaInfo:
        """Describe a saga as a worker derives it from the host's history.

        Args:
            id: the host's id of its execution; of a child ``<parent id>/<step key>``.

        Raises:
            SagaNotFound: no saga has this id.
            StoreError: no worker answered, or its code does not fit the history.
        """
        root, child = await self._root(id)
        snapshot = await self._port.look(root)
        info: SagaInfo | None = self._registry.face.describe(self._standing(snapshot, child))
        if info is None:
            raise self._registry.face.not_found(id)
        return info

    async def _root(self, id: str) -> tuple[str, str]:
        """The execution that an id belongs to, and the key of the child that it names."""
        if id and is_text(id):
            for root in filter(None, self._registry.face.candidates(id)):
                if await self._port.find(root) is not None:
                    return root, id[len(root) + 1 :]
        raise not_found(id, self.host.name)

    def _standing(self, snapshot: Snapshot, child: str = "") -> Standing:
        record = snapshot.record
        return snapshot.standing(self._registry.shape(record.name, record.version), child)

    async def snapshot(self, id: str) -> Snapshot:
        """The row and the journal of a saga, as a worker derives them.

        Args:
            id: the host's id of its execution.

        Raises:
            SagaNotFound: no saga has this id.
        """
        root, _ = await self._root(id)
        return await self._port.look(root)

    async def _result_of(self, id: str, child: str = "") -> Any:
        """Wait for the end of a saga; its result, or the error that describes its end."""
        ended = await self._port.outcome(id)
        found = await self._port.find(id)
        name, version = ("", 0) if found is None else (found[0], found[1].version or 0)
        standing = None
        if child or ended.status is RunStatus.STUCK:
            try:
                snapshot = await self._port.look(id)
            except StoreError:
                if child:
                    raise
            else:
                name, version = snapshot.record.name, snapshot.record.version
                standing = self._standing(snapshot, child)
        if not version and (known := self._registry.versions(name)):
            version = known[0]
        shape = self._registry.shape(name, version)
        return self._registry.face.outcome(RunRef(1, id, name, version), ended.outcome(), shape, standing)

    # -- operators -------------------------------------------------------------------------------------------------

    async def cancel(self, id: str, *, reason: str = "", actor: str = "", note: str = "") -> None:
        """Ask for a rollback; accepted by the host on return. Steps in progress end first, then everything is undone.

        Args:
            id: the saga.
            reason: the reason, kept with the request.
            actor: the person who asks.
            note: the reason.

        Raises:
            SagaPastPivot: nothing can be undone any more.
            WrongState: it has ended in another way.
            SagaNotFound: no saga has this id.
        """
        await self._act(id, "cancel", OperatorAction(reason=reason, actor=actor, note=note))

    async def retry(self, id: str, step: str | None = None, *, actor: str = "", note: str = "") -> None:
        """Retry what a stuck saga is stuck on, with a fresh retry policy; durable on return.

        Args:
            id: the saga.
            step: only this step. Default: everything that it is stuck on.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it is not stuck, or not on this.
            SagaNotFound: no saga has this id.
        """
        await self._act(id, "retry", OperatorAction(step=step, actor=actor, note=note))

    async def skip(self, id: str, step: str, *, actor: str = "", note: str = "") -> None:
        """Count the compensation of a step as done, because a person has undone it; durable on return.

        Args:
            id: the saga.
            step: the key of the step.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it is not stuck, or not on this.
            SagaNotFound: no saga has this id.
        """
        await self._act(id, "skip", OperatorAction(step=step, actor=actor, note=note))

    async def resolve(
        self, id: str, step: str, *, happened: bool, result: object = None, actor: str = "", note: str = ""
    ) -> None:
        """Settle an unknown outcome, or a failure that is held back, or a given-up compensation; durable on return.

        Args:
            id: the saga.
            step: the key of the step.
            happened: whether it has succeeded, or never happened.
            result: what it returned, if it happened.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it is not stuck, or not on this.
            SagaNotFound: no saga has this id.
            PayloadError: the result is not of the step's type.
        """
        stored = self._registry.codec.encode(result, what=f"saga {id}, step {step!r}: the result given to resolve")
        action = OperatorAction(step=step, happened=happened, result=msgspec.Raw(stored), actor=actor, note=note)
        await self._act(id, "resolve", action)

    async def kill(self, id: str, *, actor: str = "", note: str = "") -> None:
        """End a saga here and now; nothing is undone. The execution ends as failed; durable on return.

        Args:
            id: the saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it has ended.
            SagaNotFound: no saga has this id.
        """
        await self._act(id, "kill", OperatorAction(actor=actor, note=note))

    async def pause(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Start no further step until it is resumed; its deadline runs on; durable on return.

        Args:
            id: the saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it has ended.
            SagaNotFound: no saga has this id.
        """
        await self._act(id, "pause", OperatorAction(actor=actor, note=note))

    async def resume(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Continue after a pause; durable on return.

        Args:
            id: the saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it has ended.
            SagaNotFound: no saga has this id.
        """
        await self._act(id, "resume", OperatorAction(actor=actor, note=note))

    async def rollback(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Undo what a stuck saga has done; durable on return.

        Args:
            id: the saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            Unsupported: it was killed, so its execution is closed.
            SagaPastPivot: nothing can be undone any more.
            WrongState: it is not stuck.
            SagaNotFound: no saga has this id.
        """
        await self._act(id, "rollback", OperatorAction(actor=actor, note=note))

    async def _act(self, id: str, verb: str, action: OperatorAction) -> None:
        root, child = await self._root(id)
        while True:
            try:
                snapshot = await self._port.look(root)
            except StoreError:  # the host takes a cancel without a worker, and the saga judges it then
                if verb != "cancel" or child or not await self._port.cancel(root, action):
                    raise
                return
            if verb == "rollback" and snapshot.record.status is RunStatus.KILLED and self.host.not_killed:
                raise self._no(verb, self.host.not_killed)
            order = self._registry.face.judge(verb, action, self._standing(snapshot, child))
            if order is None:
                return
            if verb == "cancel":
                taken = await self._port.cancel(root, action)
            else:
                taken = await self._port.tell(root, order.name, order.payload)
            if taken:
                return
            if snapshot.record.status not in ENDS:
                continue  # it has ended meanwhile: judge again
            raise not_found(id, self.host.name)

    # -- callbacks -------------------------------------------------------------------------------------------------

    async def complete_callback(
        self,
        token: str | None = None,
        value: object = None,
        *,
        saga_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback; durable on return. The first answer counts.

        Args:
            token: the callback's token; or else
            saga_id: its saga, and
            name: its name there.
            value: the answer.
            actor: the person who answers.
            note: the reason.

        Raises:
            CallbackNotFound: the token is unknown or forged, or the saga has no such callback.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, cancel, or the end.
            PayloadError: the value is not of the declared type; the saga keeps waiting.
        """
        stored = self._registry.codec.encode_ordered(value, what="the answer to a callback")
        await self._answer(token, saga_id, name, Answer("", COMPLETED, msgspec.Raw(stored), actor, note))

    async def fail_callback(
        self,
        token: str | None = None,
        message: str = "",
        *,
        saga_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with a failure; durable on return. The body sees ``CallbackFailed``.

        Args:
            token: the callback's token; or else
            saga_id: its saga, and
            name: its name there.
            message: what the body is told.
            actor: the person who answers.
            note: the reason.

        Raises:
            CallbackNotFound: the token is unknown or forged, or the saga has no such callback.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, cancel, or the end.
        """
        stored = self._registry.codec.encode(str(message), what="the message that fails a callback")
        await self._answer(token, saga_id, name, Answer("", FAILED, msgspec.Raw(stored), actor, note))

    async def heartbeat_callback(
        self, token: str | None = None, *, saga_id: str | None = None, name: str | None = None
    ) -> None:
        """Report that the answer to a callback is still being worked on; durable on return.

        Args:
            token: the callback's token; or else
            saga_id: its saga, and
            name: its name there.

        Raises:
            CallbackNotFound: the token is unknown or forged, or the saga has no such callback.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, cancel, or the end.
        """
        await self._answer(token, saga_id, name, Answer("", HEARTBEAT))

    async def _answer(self, token: str | None, saga_id: str | None, name: str | None, answer: Answer) -> None:
        if token is not None and saga_id is None and name is None:
            root, key = await self._port.locate(token)
        elif token is None and isinstance(saga_id, str) and isinstance(name, str):
            root, child = await self._root(saga_id)
            key = f"{child}/{name}" if child else name
        else:
            raise DefinitionError("name the callback by its token, or by saga_id= and name=; nothing was changed")
        answer = msgspec.structs.replace(answer, key=key)
        before = await self._port.look(root)
        if is_answered(before.record, before.entries, answer):
            return
        await self._port.tell(root, answer.signal, msgspec.json.encode(answer))  # of a closed one the next look tells
        after = await self._port.look(root)
        if is_answered(after.record, after.entries, answer) or answer.kind != COMPLETED:
            return
        if is_misfit(after.entries, answer, before.entries[-1].seq):
            raise PayloadError(
                f"saga {root}: the answer to callback {key!r} is not of its declared type; it was not accepted, and "
                "the saga keeps waiting"
            )


class HostHandle(Generic[R]):
    """One saga, as its starter sees it."""

    __slots__ = ("_child", "_client", "_root")

    def __init__(self, client: HostClient, root: str, child: str = "") -> None:
        self._client, self._root, self._child = client, root, child

    @property
    def id(self) -> str:
        """The host's id of the execution; ``<parent id>/<step key>`` for a child."""
        return f"{self._root}/{self._child}" if self._child else self._root

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} on {self._client.host.name}>"

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the end; returns what the body returned.

        Where there is no result it raises as ``SagaHandle.result`` does.

        Raises:
            TimeoutError: it has not ended in time, and goes on.
        """
        limit_s = None if timeout is None else duration(timeout, "timeout").total_seconds()
        async with asyncio.timeout(limit_s):
            return await self._client._result_of(self._root, self._child)  # type: ignore[no-any-return]  # noqa: SLF001 - its own

    async def info(self) -> SagaInfo:
        """Its state, as a worker derives it."""
        return await self._client.info(self.id)

    async def status(self) -> SagaStatus:
        """Its status."""
        return (await self.info()).status

    async def history(self) -> list[HistoryEntry]:
        """Its journal, oldest first, as a worker derives it from the host's history."""
        entries = (await self._client.snapshot(self._root)).entries
        prefix = f"{self._child}/"
        return history_of([entry for entry in entries if not self._child or entry.key.startswith(prefix)])

    async def cancel(self, reason: str = "") -> None:
        """Ask for a rollback."""
        await self._client.cancel(self.id, reason=reason)
