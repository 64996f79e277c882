"""Operators' verbs, from ``retry`` to ``kill``: each is journalled with who asked and why, and durable on exit.

A new verb is one function with its own arguments that hands what it asks for to ``give``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import msgspec
import typer

from sagas.cli import screen
from sagas.cli.address import orchestrator_at
from sagas.cli.exits import CommandError
from sagas.cli.layout import Piece, clean, wrapped
from sagas.cli.looking import Seen, look
from sagas.cli.options import Actor, Common, Json, Note, SagaId, Store, actor_or_user, common
from sagas.model.verbs import Repeat, judge

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

Call = Callable[["Orchestrator"], Awaitable[None]]

OneStep = Annotated[
    str | None, typer.Option("--step", metavar="STEP", help="Only this step, as `sagas show` names it. [default: all]")
]
StepKey = Annotated[str, typer.Argument(metavar="STEP", help="The step, as `sagas show` names it.", show_default=False)]


@attrs.frozen(kw_only=True)
class Asked:
    """A verb, as it was typed."""

    verb: str
    saga_id: str
    step: str | None = None
    happened: bool | None = None
    actor: str
    note: str

    @property
    def signed(self) -> dict[str, str]:
        """Who asks and why, as the orchestrator takes it."""
        return {"actor": self.actor, "note": self.note}


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    for verb in (retry, skip, resolve, cancel, rollback, kill, pause, resume):
        app.command(verb.__name__)(verb)


def retry(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    step: OneStep = None,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Have a stuck saga try again what it is stuck on, once you have mended the cause."""
    asked = Asked(verb="retry", saga_id=saga_id, step=step, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(asked, given, lambda orchestrator: orchestrator.retry(saga_id, step, **asked.signed))


def skip(
    ctx: typer.Context,
    saga_id: SagaId,
    step: StepKey,
    *,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Count the compensation of STEP as done, because you have undone it by hand."""
    asked = Asked(verb="skip", saga_id=saga_id, step=step, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(asked, given, lambda orchestrator: orchestrator.skip(saga_id, step, **asked.signed))


def resolve(
    ctx: typer.Context,
    saga_id: SagaId,
    step: StepKey,
    *,
    happened: Annotated[
        bool, typer.Option("--happened/--did-not-happen", help="What you have found out.", show_default=False)
    ],
    result: Annotated[
        str | None, typer.Option(metavar="JSON", help="With --happened: what the step would have returned.")
    ] = None,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Settle the unknown outcome of STEP: it has happened, or it has not."""
    value = _result(result, happened=happened)
    asked = Asked(verb="resolve", saga_id=saga_id, step=step, happened=happened, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(
        asked,
        given,
        lambda orchestrator: orchestrator.resolve(saga_id, step, happened=happened, result=value, **asked.signed),
    )


def _result(text: str | None, *, happened: bool) -> Any:
    if text is None:
        return None
    if not happened:
        raise CommandError("--result goes with --happened only: what did not happen has no result; nothing was changed")
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except msgspec.DecodeError as error:
        raise CommandError(
            f"--result is not JSON: {error}; nothing was changed. A text needs quotes of its own: '\"teapot\"'"
        ) from error


def cancel(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Ask for a rollback: what is in flight ends first, then everything is undone. Refused after the pivot."""
    asked = Asked(verb="cancel", saga_id=saga_id, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(asked, given, lambda orchestrator: orchestrator.cancel(saga_id, **asked.signed))


def rollback(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Undo what a stuck or killed saga has done. Refused after the pivot."""
    asked = Asked(verb="rollback", saga_id=saga_id, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(asked, given, lambda orchestrator: orchestrator.rollback(saga_id, **asked.signed))


def kill(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """End a saga here and now. Nothing is undone; `rollback` may follow."""
    asked = Asked(verb="kill", saga_id=saga_id, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(asked, given, lambda orchestrator: orchestrator.kill(saga_id, **asked.signed))


def pause(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Begin no further step until `resume`. The deadline runs on."""
    asked = Asked(verb="pause", saga_id=saga_id, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(asked, given, lambda orchestrator: orchestrator.pause(saga_id, **asked.signed))


def resume(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Go on after `pause`."""
    asked = Asked(verb="resume", saga_id=saga_id, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(asked, given, lambda orchestrator: orchestrator.resume(saga_id, **asked.signed))


def give(asked: Asked, given: Common, call: Call) -> None:
    """Give the verb, durably, and tell what happens next.

    Raises:
        SagaNotFound: no saga has this id.
        WrongState: the verb makes no sense as the saga stands, or the saga has no such step.
        CommandError: it is about a whole saga, and a child was named.
    """
    seen, repeated = asyncio.run(_give(asked, given, call))
    if given.json:
        screen.document(_document(asked, seen, repeated=repeated))
        return
    root = seen.root
    if repeated:
        told = f"{asked.verb} of {asked.saga_id} changes nothing: that has been done already;"
    else:
        served = f"{root.saga} v{root.version}"
        told = f"{asked.verb} of {asked.saga_id} is recorded. A worker that serves {served} takes it up;"
    command = f"sagas show {quote(asked.saga_id)}{given.address.option}"
    screen.show(
        [*wrapped(f"{told} look with", width=screen.width(), indent=""), (Piece(f"  {clean(command)}", "bold"),)]
    )


async def _give(asked: Asked, given: Common, call: Call) -> tuple[Seen, bool]:
    """Give it; how the saga stood before, and whether there was nothing left to change."""
    async with orchestrator_at(given.address, worker=False) as orchestrator:
        seen = await look(orchestrator, asked.saga_id)
        root = seen.root
        if seen.is_child and asked.step is None:
            raise CommandError(
                f"{asked.saga_id} is a part of the saga {root.id}, and `{asked.verb}` is about a whole saga, so "
                f"nothing was changed; use `sagas {asked.verb} {quote(root.id)}`"
            )
        step = None if asked.step is None else seen.prefix + asked.step
        repeated = isinstance(judge(asked.verb, root, seen.phase, step), Repeat)
        await call(orchestrator)
        return seen, repeated


def _document(asked: Asked, seen: Seen, *, repeated: bool) -> dict[str, Any]:
    info = seen.info
    about = {"id": info.id, "saga": info.saga, "version": info.version, "status_before": info.status}
    what = {"verb": asked.verb, "step": asked.step, "happened": asked.happened, "repeated": repeated}
    return about | what | asked.signed
