"""``start``: starts a saga, and waits for its end if asked to.

Invariant: arguments are converted by the body's own annotations before anything is started.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import msgspec
import typer

from durable_core import PayloadError
from durable_core.layer import CallShape, sentences
from sagas.cli import output, snapshot, views
from sagas.cli.filters import tags_of
from sagas.cli.modules import load, sagas_of
from sagas.cli.options import Options, command, json_of, orchestrator_at
from sagas.cli.output import CommandError, code_of, tell
from sagas.cli.snapshot import Snapshot
from sagas.errors import SagaCompensated, SagaKilled, SagaStuck
from sagas.model.definition import SagaDef

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator, SagaHandle


@attrs.frozen
class Call:
    """The arguments as typed: plain JSON."""

    args: list[Any]
    kwargs: dict[str, Any]


@attrs.frozen(kw_only=True)
class StartRequest:
    """Which saga to start, and how."""

    name: str
    module: str | None
    version: int | None
    id: str | None
    deadline: float | None
    """Seconds."""
    tags: dict[str, str]
    call: Call

    @property
    def options(self) -> dict[str, Any]:
        """The options for the orchestrator."""
        deadline = None if self.deadline is None else timedelta(seconds=self.deadline)
        return {"id": self.id, "version": self.version, "deadline": deadline, "tags": self.tags}


NOT_STARTED = "nothing was started"


@command
def start(
    options: Options,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The saga's name.", show_default=False)],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="JSON", help="The arguments in order, each as JSON.", show_default=False),
    ] = None,
    *,
    args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="All arguments at once: a JSON array, or an object by parameter name."),
    ] = None,
    module: Annotated[
        str | None,
        typer.Option(metavar="MODULE", help="The module of the saga: a dotted name, or the path of a .py file."),
    ] = None,
    saga_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The saga's id; safe to repeat with the same input. [default: random]"),
    ] = None,
    version: Annotated[
        int | None, typer.Option(metavar="N", help="The version to start. [default: the newest in MODULE]")
    ] = None,
    deadline: Annotated[float | None, typer.Option(metavar="SECONDS", help="Replaces the saga's own deadline.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A tag, to find the saga by; may be repeated.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the saga ends; exit code 1 if it failed.")] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Stop waiting after so long; the saga continues.")
    ] = None,
) -> None:
    """Start a saga, which a worker then runs.

    The saga is durable when the command returns.
    """
    call, tags = _call(arguments or [], args), tags_of(tag)
    request = StartRequest(
        name=name, module=module, version=version, id=saga_id, deadline=deadline, tags=tags, call=call
    )
    raise typer.Exit(asyncio.run(_start(request, options, wait=wait or timeout is not None, timeout_s=timeout)))


def _call(arguments: list[str], together: str | None) -> Call:
    if together is None:
        each = enumerate(arguments, 1)
        return Call([json_of(text, what=f"argument {place}", unchanged=NOT_STARTED) for place, text in each], {})
    if arguments:
        raise CommandError(f"give the arguments one by one, or all at once with --args, not both; {NOT_STARTED}")
    match json_of(together, what="--args", unchanged=NOT_STARTED):
        case list(values):  # pyright: ignore[reportUnknownVariableType]
            return Call(values, {})  # pyright: ignore[reportUnknownArgumentType]
        case dict(values):  # pyright: ignore[reportUnknownVariableType]
            return Call([], values)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            raise CommandError(
                f"--args takes a JSON array of the arguments, or an object by parameter name; {NOT_STARTED}"
            )


async def _start(request: StartRequest, options: Options, *, wait: bool, timeout_s: float | None) -> int:
    sagas = [] if request.module is None else sagas_of([load(request.module)])
    definition = _chosen(sagas, request)
    orchestrator = orchestrator_at(options.address, create=True, worker=False, sagas=sagas)
    args, kwargs = _arguments(orchestrator, definition, request)  # before a store is created for it
    async with orchestrator:
        handle = await orchestrator.start(definition or request.name, *args, **request.options, **kwargs)
        if not wait:
            info = await handle.info()
            _started(info.id, info.saga, info.version, options)
            return 0
        failure = await _end(handle, timeout_s)
        ended = await snapshot.take(orchestrator, handle.id)
    return _outcome(ended, failure, options)


def _chosen(sagas: list[SagaDef[..., Any]], request: StartRequest) -> SagaDef[..., Any] | None:
    """The saga of this name and version, or its newest version; None without a module."""
    if not sagas:
        return None
    fitting = [saga for saga in sagas if saga.name == request.name and request.version in (None, saga.version)]
    if not fitting:
        known = ", ".join(sorted(f"{saga.name} v{saga.version}" for saga in sagas))
        asked = request.name if request.version is None else f"{request.name} v{request.version}"
        raise CommandError(f"{request.module} has no saga {asked!r}; it has {known}. Nothing was started")
    return max(fitting, key=lambda saga: saga.version)


def _arguments(
    orchestrator: "Orchestrator", definition: SagaDef[..., Any] | None, request: StartRequest
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if definition is None:
        return tuple(request.call.args), request.call.kwargs
    shape = CallShape.of(definition.body, orchestrator.engine.codec, skip=1)
    try:
        return converted(shape, request.call, what=f"starting {request.name}: the arguments")
    except PayloadError as error:
        raise PayloadError(error.text, sentences(error.advice, NOT_STARTED)) from error


def converted(shape: CallShape, call: Call, *, what: str) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments as values of the body's own types.

    Raises:
        DefinitionError: they do not match its signature.
        PayloadError: one does not fit its annotation.
    """
    shape.check(tuple(call.args), call.kwargs)
    bound = shape.signature.bind(*call.args, **call.kwargs)
    gap = [name for name in bound.kwargs if name in shape.signature.parameters and _positional(shape, name)]
    if gap:
        raise CommandError(f"{what}: {gap[0]!r} is given, but a parameter before it is not; give that too")
    return shape.decode(msgspec.json.encode({"args": bound.args, "kwargs": bound.kwargs}), what=what, given=True)


def _positional(shape: CallShape, name: str) -> bool:
    parameter = shape.signature.parameters[name]
    return parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)


async def _end(handle: "SagaHandle[Any]", timeout_s: float | None) -> Exception | None:
    """Wait for the end; returns the failure, or None if the saga completed."""
    tell(f"waiting for saga {handle.id!r}, which a worker must run; Ctrl-C stops waiting, not the saga")
    try:
        await handle.result(timeout=timeout_s)
    except (SagaCompensated, SagaStuck, SagaKilled) as failure:
        return failure
    except TimeoutError as error:
        raise CommandError(
            f"saga {handle.id!r} has not ended within {timeout_s:g} s; it continues. "
            f"See `sagas show {quote(handle.id)}`"
        ) from error
    return None


def _outcome(ended: Snapshot, failure: Exception | None, options: Options) -> int:
    """Say how it ended; returns the exit code."""
    info = ended.info
    if options.json:
        output.document(views.document_of(ended))
    elif failure is None:
        output.document(views.plain(info.result))
    if failure is None:
        return code_of("completed")
    tell(f"{info.status}: {failure}")
    return code_of(info.status)


def _started(saga_id: str, saga: str, version: int, options: Options) -> None:
    if options.json:
        output.document({"id": saga_id, "saga": saga, "version": version})
        return
    output.say(
        f"{saga_id} ({saga} v{version}) is started, and a worker that serves it will run it. To follow:",
        command=f"sagas show {quote(saga_id)}{options.address.option}",
    )
