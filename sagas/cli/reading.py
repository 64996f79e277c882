"""Commands that look: ``list``, ``show``, ``history``, ``versions``. They change nothing and never make a store."""

import asyncio
from typing import Annotated, Any

import typer

from sagas.cli import documents, lists, screen, statuses, timeline
from sagas.cli.address import Address, orchestrator_at
from sagas.cli.exits import code_of
from sagas.cli.layout import Line, Piece
from sagas.cli.looking import Seen, journal, look
from sagas.cli.options import Common, Json, SagaId, Store, common
from sagas.model.info import Entry, SagaInfo
from sagas.model.versions import VersionInfo


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("list")(list_sagas)
    app.command("show")(show)
    app.command("history")(history)
    app.command("versions")(versions)


def list_sagas(
    ctx: typer.Context,
    *,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only those that stand so: stuck, running, completed, ...")
    ] = None,
    saga: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this name.")] = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Only those that need a person: stuck, failing, or waiting in vain.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List sagas, newest first."""
    given = common(ctx, store, as_json=as_json)
    which = {"status": status, "saga": saga, "attention": attention}
    found, count, now_ns = asyncio.run(_select(given.address, limit=limit, **which))
    if given.json:
        screen.document({"sagas": [documents.summary(info) for info in found], "count": count})
        return
    lines: list[Line] = []
    if found:
        lines += lists.sagas(found, now_ns=now_ns, width=screen.width(), reasons=attention)
    if not found:
        lines.append((Piece(f"No saga of that description in {given.address.shown}."),))
    elif count > len(found):
        lines.append((Piece(f"{len(found)} of {count}; --limit shows more."),))
    screen.show(lines)


def show(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    payloads: Annotated[
        bool, typer.Option("--payloads", help="With its input, its result and those of its steps.")
    ] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show how a saga stands, step by step, and what mends it.

    Exit code 1 says that it failed: it is compensated, resolved, stuck or killed.
    """
    given = common(ctx, store, as_json=as_json)
    seen = asyncio.run(_look(given.address, saga_id))
    present(seen, given, payloads=payloads)
    raise typer.Exit(code_of(seen.info.status))


def history(ctx: typer.Context, saga_id: SagaId, *, store: Store = None, as_json: Json = False) -> None:
    """Print a saga's journal: everything that has happened to it, oldest first."""
    given = common(ctx, store, as_json=as_json)
    entries = asyncio.run(_journal(given.address, saga_id))
    if given.json:
        screen.document(documents.history(saga_id, entries))
        return
    screen.show(lists.history(entries, width=screen.width()))


def versions(
    ctx: typer.Context,
    *,
    saga: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this name.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show the versions of sagas: how many sagas each has, who serves it, and which can be retired or are missed."""
    given = common(ctx, store, as_json=as_json)
    found = asyncio.run(_versions(given.address, saga))
    if given.json:
        screen.document({"versions": found})
    elif found:
        screen.show(lists.versions(found, width=screen.width()))
    else:
        screen.show([(Piece(f"No saga of that description in {given.address.shown}."),)])


def present(seen: Seen, given: Common, *, payloads: bool) -> None:
    """Write how a saga stands, in the form that was asked for."""
    if given.json:
        screen.document(documents.whole(seen, payloads=payloads, option=given.address.option))
        return
    how = timeline.Look(
        width=screen.width(),
        ascii=not screen.can_write(statuses.EVERY_SIGN),
        payloads=payloads,
        option=given.address.option,
    )
    screen.show(timeline.timeline(seen, how))


async def _select(address: Address, *, limit: int, **which: Any) -> tuple[list[SagaInfo], int, int]:
    async with orchestrator_at(address, worker=False) as orchestrator:
        found = await orchestrator.list(limit=limit, **which)
        return found, await orchestrator.count(**which), orchestrator.engine.clock.now_ns()


async def _look(address: Address, saga_id: str) -> Seen:
    async with orchestrator_at(address, worker=False) as orchestrator:
        return await look(orchestrator, saga_id)


async def _versions(address: Address, saga: str | None) -> list[VersionInfo]:
    async with orchestrator_at(address, worker=False) as orchestrator:
        return await orchestrator.versions(saga)


async def _journal(address: Address, saga_id: str) -> list[Entry]:
    async with orchestrator_at(address, worker=False) as orchestrator:
        return await journal(orchestrator, saga_id)
