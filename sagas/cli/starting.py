"""``start``: begins a saga, and waits for its end if asked to.

Invariant: arguments are read by the body's own annotations before anything is started.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import msgspec
import typer

from durable_core import CallShape
from sagas.cli import documents, screen
from sagas.cli.address import orchestrator_at
from sagas.cli.exits import CommandError, code_of, tell
from sagas.cli.layout import Piece, clean, wrapped
from sagas.cli.looking import Seen, look
from sagas.cli.modules import load, sagas_of
from sagas.cli.options import Common, Json, Store, common
from sagas.errors import SagaCompensated, SagaKilled, SagaStuck
from sagas.model.definition import SagaDef

if TYPE_CHECKING:
    from sagas.handle import SagaHandle
    from sagas.orchestrator import Orchestrator


@attrs.frozen
class Call:
    """The arguments as they were typed: plain JSON."""

    args: list[Any]
    kwargs: dict[str, Any]


@attrs.frozen(kw_only=True)
class Wanted:
    """Which saga to start, and how."""

    name: str
    module: str | None
    version: int | None
    id: str | None
    deadline: float | None
    """Seconds."""
    call: Call

    @property
    def options(self) -> dict[str, Any]:
        """What the orchestrator takes besides the arguments."""
        deadline = None if self.deadline is None else timedelta(seconds=self.deadline)
        return {"id": self.id, "version": self.version, "deadline": deadline}


@attrs.frozen
class Patience:
    """How long to wait for the end."""

    wait: bool
    timeout: float | None
    """Seconds; None is for ever."""


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("start")(start)


def start(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The saga's name.", show_default=False)],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="JSON", help="Its arguments in order, each as JSON.", show_default=False),
    ] = None,
    *,
    args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="All arguments at once: an array, or an object by parameter name."),
    ] = None,
    module: Annotated[
        str | None, typer.Option(metavar="MODULE", help="Where it is declared: dotted, or a .py file.")
    ] = None,
    saga_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Its id; once more with the same input is harmless. [default: random]"),
    ] = None,
    version: Annotated[
        int | None, typer.Option(metavar="N", help="Which version. [default: the newest in MODULE]")
    ] = None,
    deadline: Annotated[float | None, typer.Option(metavar="SECONDS", help="Instead of the saga's own.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; exit code 1 if it failed.")] = False,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Wait no longer; the saga goes on.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Start a saga. It is durable when this ends; a worker runs it."""
    given = common(ctx, store, as_json=as_json)
    wanted = Wanted(
        name=name, module=module, version=version, id=saga_id, deadline=deadline, call=_call(arguments or [], args)
    )
    raise typer.Exit(asyncio.run(_start(wanted, given, Patience(wait or timeout is not None, timeout))))


def _call(arguments: list[str], together: str | None) -> Call:
    if together is None:
        return Call([_json(text, f"argument {place}") for place, text in enumerate(arguments, 1)], {})
    if arguments:
        raise CommandError(
            "give the arguments either one by one or all at once with --args, not both; nothing was started"
        )
    match _json(together, "--args"):
        case list(values):  # pyright: ignore[reportUnknownVariableType]
            return Call(values, {})  # pyright: ignore[reportUnknownArgumentType]
        case dict(values):  # pyright: ignore[reportUnknownVariableType]
            return Call([], values)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            raise CommandError(
                "--args takes a JSON array of the arguments, or an object by parameter name; nothing was started"
            )


def _json(text: str, what: str) -> Any:
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except msgspec.DecodeError as error:
        raise CommandError(
            f"{what} is not JSON: {error}; nothing was started. A text needs quotes of its own: '\"teapot\"'"
        ) from error


async def _start(wanted: Wanted, given: Common, patience: Patience) -> int:
    sagas = [] if wanted.module is None else sagas_of([load(wanted.module)])
    definition = _chosen(sagas, wanted)
    orchestrator = orchestrator_at(given.address, create=True, worker=False, sagas=sagas)
    args, kwargs = _arguments(orchestrator, definition, wanted)  # before a store is made for it
    async with orchestrator:
        handle = await orchestrator.start(definition or wanted.name, *args, **wanted.options, **kwargs)
        if not patience.wait:
            info = await handle.info()
            _told(info.id, info.saga, info.version, given)
            return 0
        failure = await _end(handle, patience)
        seen = await look(orchestrator, handle.id)
    return _outcome(seen, failure, given)


def _chosen(sagas: list[SagaDef[..., Any]], wanted: Wanted) -> SagaDef[..., Any] | None:
    """The saga of this name and version, or its newest one; None where no module was given."""
    if not sagas:
        return None
    fitting = [saga for saga in sagas if saga.name == wanted.name and wanted.version in (None, saga.version)]
    if not fitting:
        known = ", ".join(sorted(f"{saga.name} v{saga.version}" for saga in sagas))
        asked = wanted.name if wanted.version is None else f"{wanted.name} v{wanted.version}"
        raise CommandError(f"{wanted.module} holds no saga {asked!r}; it holds {known}. Nothing was started")
    return max(fitting, key=lambda saga: saga.version)


def _arguments(
    orchestrator: "Orchestrator", definition: SagaDef[..., Any] | None, wanted: Wanted
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if definition is None:
        return tuple(wanted.call.args), wanted.call.kwargs
    shape = CallShape.of(definition.body, orchestrator.engine.codec, skip=1)
    return typed(shape, wanted.call, what=f"starting {wanted.name}: the arguments")


def typed(shape: CallShape, call: Call, *, what: str) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Plain JSON arguments as values of the body's own types.

    Raises:
        DefinitionError: they do not match its signature.
        PayloadError: one does not fit its annotation.
    """
    shape.check(tuple(call.args), call.kwargs)
    bound = shape.signature.bind(*call.args, **call.kwargs)
    gap = [name for name in bound.kwargs if name in shape.signature.parameters and _positional(shape, name)]
    if gap:
        raise CommandError(f"{what}: {gap[0]!r} is given, but not every parameter before it; give those too")
    return shape.decode(msgspec.json.encode({"args": bound.args, "kwargs": bound.kwargs}), what=what)


def _positional(shape: CallShape, name: str) -> bool:
    parameter = shape.signature.parameters[name]
    return parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)


async def _end(handle: "SagaHandle[Any]", patience: Patience) -> Exception | None:
    """Wait for the end; the failure that it came to, or None."""
    tell(f"waiting for {handle.id!r}, which a worker runs; Ctrl-C ends the waiting, not the saga")
    try:
        await handle.result(timeout=patience.timeout)
    except (SagaCompensated, SagaStuck, SagaKilled) as failure:
        return failure
    except TimeoutError as error:
        raise CommandError(
            f"saga {handle.id!r} has not ended within {patience.timeout:g} s; it goes on. "
            f"See `sagas show {quote(handle.id)}`"
        ) from error
    return None


def _outcome(seen: Seen, failure: Exception | None, given: Common) -> int:
    """Tell how it ended; returns the exit code."""
    info = seen.info
    if given.json:
        screen.document(documents.whole(seen, payloads=True, option=given.address.option))
    elif failure is None:
        screen.document(documents.plain(info.result))
    if failure is None:
        return code_of("completed")
    tell(f"{info.status}: {failure}")
    return code_of(info.status)


def _told(saga_id: str, saga: str, version: int, given: Common) -> None:
    if given.json:
        screen.document({"id": saga_id, "saga": saga, "version": version})
        return
    command = f"  sagas show {quote(saga_id)}{given.address.option}"
    screen.show(
        [
            *wrapped(
                f"{saga_id} ({saga} v{version}) is started. A worker that serves it runs it; look with",
                width=screen.width(),
                indent="",
            ),
            (Piece(clean(command), "bold"),),
        ]
    )
