"""Commands that look: ``list``, ``show``, ``history``, ``versions``. They change nothing and never create a store."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagas.cli import output, snapshot, views
from sagas.cli.options import Options, SagaId, SagaName, ask, command
from sagas.model.info import SagaInfo

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator


@command
def list_sagas(
    options: Options,
    *,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only those that stand so: stuck, running, completed, ...")
    ] = None,
    saga: SagaName = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Only those that need a person: stuck, failing, or waiting in vain.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
) -> None:
    """List sagas, newest first."""
    which: dict[str, Any] = {"status": status, "saga": saga, "attention": attention}

    async def select(orchestrator: "Orchestrator") -> tuple[list[SagaInfo], int, int]:
        found = await orchestrator.list(limit=limit, **which)
        return found, await orchestrator.count(**which), orchestrator.engine.clock.now_ns()

    found, count, now_ns = ask(options.address, select)
    if options.json:
        output.document({"sagas": [views.summary(info) for info in found], "count": count})
    elif not found:
        output.say(f"No saga of that description in {options.address.shown}.")
    else:
        output.show(views.sagas_table(found, now_ns=now_ns, width=output.width(), reasons=attention))
        if count > len(found):
            output.say(f"{len(found)} of {count}; --limit shows more.")


@command
def show(
    options: Options,
    saga_id: SagaId,
    *,
    payloads: Annotated[
        bool, typer.Option("--payloads", help="With its input, its result and those of its steps.")
    ] = False,
) -> None:
    """Show how a saga stands, step by step, and what mends it.

    Exit code 1 says that it failed: it is compensated, resolved, stuck or killed.
    """
    taken = ask(options.address, lambda orchestrator: snapshot.take(orchestrator, saga_id))
    option = options.address.option
    if options.json:
        output.document(views.document_of(taken, payloads=payloads, option=option))
    else:
        ascii_only = not output.can_write(views.EVERY_SIGN)
        page = views.Page(snapshot=taken, width=output.width(), ascii=ascii_only, payloads=payloads, option=option)
        output.show(page.lines())
    raise typer.Exit(output.code_of(taken.info.status))


@command
def history(options: Options, saga_id: SagaId) -> None:
    """Print a saga's journal: everything that has happened to it, oldest first."""
    entries = ask(options.address, lambda orchestrator: snapshot.journal(orchestrator, saga_id))
    if options.json:
        output.document(views.journal_document(saga_id, entries))
    else:
        output.show(views.journal_table(entries, width=output.width()))


@command
def versions(options: Options, *, saga: SagaName = None) -> None:
    """Show the versions of sagas: how many sagas each has, who serves it, and which can be retired or are missed."""
    found = ask(options.address, lambda orchestrator: orchestrator.versions(saga))
    if options.json:
        output.document({"versions": found})
    elif found:
        output.show(views.versions_table(found, width=output.width()))
    else:
        output.say(f"No saga of that description in {options.address.shown}.")
