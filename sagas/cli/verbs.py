"""Operators' verbs: ``retry``, ``cancel``. Each is journalled with who asked and why, and durable on exit.

A new verb is one function with its own arguments that hands what it asks for to ``give``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from sagas.cli import screen
from sagas.cli.address import orchestrator_at
from sagas.cli.exits import CommandError
from sagas.cli.layout import Piece, clean, wrapped
from sagas.cli.options import Actor, Common, Json, Note, SagaId, Store, actor_or_user, common
from sagas.model.info import SagaInfo

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

Call = Callable[["Orchestrator"], Awaitable[None]]

StepKey = Annotated[
    str | None, typer.Option("--step", metavar="STEP", help="Only this step, as `sagas show` names it. [default: all]")
]


@attrs.frozen(kw_only=True)
class Asked:
    """A verb, as it was typed."""

    verb: str
    saga_id: str
    step: str | None = None
    actor: str
    note: str

    @property
    def signed(self) -> dict[str, str]:
        """Who asks and why, as the orchestrator takes it."""
        return {"actor": self.actor, "note": self.note}


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("retry")(retry)
    app.command("cancel")(cancel)


def retry(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    step: StepKey = None,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Have a stuck saga try again what it is stuck on, once you have mended the cause."""
    asked = Asked(verb="retry", saga_id=saga_id, step=step, actor=actor_or_user(actor), note=note)
    given = common(ctx, store, as_json=as_json)
    give(asked, given, lambda orchestrator: orchestrator.retry(saga_id, step, **asked.signed))


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


def give(asked: Asked, given: Common, call: Call) -> None:
    """Give the verb, durably, and tell what happens next.

    Raises:
        SagaNotFound: no saga has this id.
        WrongState: the verb makes no sense as the saga stands.
        CommandError: the saga has no such step.
    """
    info = asyncio.run(_give(asked, given, call))
    if given.json:
        screen.document(_document(asked, info))
        return
    told = f"{asked.verb} of {asked.saga_id} is recorded. A worker that serves {info.saga} v{info.version} takes it up;"
    command = f"sagas show {quote(asked.saga_id)}{given.address.option}"
    screen.show(
        [*wrapped(f"{told} look with", width=screen.width(), indent=""), (Piece(f"  {clean(command)}", "bold"),)]
    )


async def _give(asked: Asked, given: Common, call: Call) -> SagaInfo:
    async with orchestrator_at(given.address, worker=False) as orchestrator:
        info = await orchestrator.info(asked.saga_id)
        if asked.step is not None and all(step.key != asked.step for step in info.steps):
            known = ", ".join(step.key for step in info.steps) or "none"
            raise CommandError(
                f"saga {asked.saga_id!r} has no step {asked.step!r}, so nothing was changed; its steps are: {known}"
            )
        await call(orchestrator)
        return info


def _document(asked: Asked, info: SagaInfo) -> dict[str, Any]:
    about = {"id": info.id, "saga": info.saga, "version": info.version, "status_before": info.status}
    return about | {"verb": asked.verb, "step": asked.step} | asked.signed
