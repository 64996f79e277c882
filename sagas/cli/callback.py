"""``callback complete|fail|heartbeat``: what a person, or a script, answers a waiting saga.

Invariant: a token is never printed, and need not be on the command line, where shells keep it and ``ps`` shows it.
"""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from durable_core import Taken
from sagas.answering import Asked, Told, beat, complete, fail
from sagas.cli import screen
from sagas.cli.address import orchestrator_at
from sagas.cli.exits import CommandError
from sagas.cli.layout import wrapped
from sagas.cli.options import Actor, Common, Json, Note, Store, actor_or_user, common

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

TOKEN = "SAGAS_TOKEN"  # noqa: S105 - the name of a variable
Call = Callable[["Orchestrator", Asked], Awaitable[Told]]

Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", help=f"Its token; - reads it from stdin. [default: ${TOKEN}]"),
]
Saga = Annotated[str | None, typer.Option("--saga", metavar="ID", help="Instead of the token: the saga, and --name.")]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The callback's name; a second use of one is NAME#2.")
]
TOLD = {
    "completed": "is answered",
    "failed": "is answered with a failure",
    "heartbeat": "knows that you are still at it",
}


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="Answer a callback that a saga waits for.", no_args_is_help=True, rich_markup_mode=None)
    group.command("complete")(complete_)
    group.command("fail")(fail_)
    group.command("heartbeat")(heartbeat)
    app.add_typer(group, name="callback")


def complete_(
    ctx: typer.Context,
    value: Annotated[str, typer.Argument(metavar="JSON", help="The answer, of the type that the saga declares.")],
    *,
    token: Token = None,
    saga: Saga = None,
    name: Name = None,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Answer a callback with a value."""
    try:
        answer: Any = msgspec.json.decode(value.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise CommandError(
            f"the answer is not JSON: {error}; nothing was changed. A text needs quotes of its own: '\"yes\"'"
        ) from error
    asked, by = _asked(token, saga, name), actor_or_user(actor)
    given = common(ctx, store, as_json=as_json)
    _give(asked, given, "completed", lambda o, which: complete(o, which, answer, actor=by, note=note))


def fail_(
    ctx: typer.Context,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="Why; the saga sees it.")] = "",
    *,
    token: Token = None,
    saga: Saga = None,
    name: Name = None,
    actor: Actor = None,
    note: Note = "",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Answer a callback with a failure: the saga sees CallbackFailed, and is undone unless it catches that."""
    asked, by = _asked(token, saga, name), actor_or_user(actor)
    given = common(ctx, store, as_json=as_json)
    _give(asked, given, "failed", lambda o, which: fail(o, which, message, actor=by, note=note))


def heartbeat(
    ctx: typer.Context,
    *,
    token: Token = None,
    saga: Saga = None,
    name: Name = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say that the answer is still being worked on, for a callback that asks for heartbeats."""
    _give(_asked(token, saga, name), common(ctx, store, as_json=as_json), "heartbeat", beat)


def _asked(token: str | None, saga: str | None, name: str | None) -> Asked:
    """Which callback is meant, by what was given here or in the environment."""
    if saga is not None or name is not None:
        if token is not None or saga is None or name is None:
            raise CommandError("name the callback by --token, or by both --saga and --name; nothing was changed")
        return Asked(saga_id=saga, name=name)
    if token == "-":  # noqa: S105 - stands for stdin
        token = (getpass.getpass("token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    found = token or os.environ.get(TOKEN)
    if not found:
        raise CommandError(
            f"which callback? Set {TOKEN} to its token, or give --token - and the token on stdin, or --saga and --name"
        )
    return Asked(token=found)


def _give(asked: Asked, given: Common, kind: str, call: Call) -> None:
    """Answer, durably, and tell what became of it.

    Raises:
        CallbackError: there is no such callback, it has another answer, or its wait was given up.
        PayloadError: the value is not of the declared type.
    """

    async def answered() -> Told:
        async with orchestrator_at(given.address, worker=False) as orchestrator:
            return await call(orchestrator, asked)

    told = asyncio.run(answered())
    if given.json:
        screen.document({"id": told.saga_id, "callback": told.key, "kind": kind, "taken": told.taken})
        return
    text = f"callback {told.key} of {told.saga_id} {TOLD[kind]}."
    if told.taken is Taken.KEPT:
        text = (
            f"this is kept for callback {told.key} of {told.saga_id}: no worker has taken it up yet. The next one that "
            "serves the saga does, and only then sees whether it is of the declared type."
        )
    screen.show(wrapped(text, width=screen.width(), indent=""))
