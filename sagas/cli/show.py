"""Commands that look: ``list``, ``show``, ``history``, ``versions``. They change nothing and never create a store."""

from typing import TYPE_CHECKING, Annotated

import typer

from sagas.cli import output, snapshot, views
from sagas.cli.arguments import SagaId, Status, saga_ids
from sagas.cli.filters import Filters, Since, Tags, Version
from sagas.cli.options import Options, SagaName, ask, command
from sagas.model.info import SagaSummary

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator


@command
def list_sagas(
    options: Options,
    *,
    status: Status = None,
    saga: SagaName = None,
    version: Version = None,
    tag: Tags = None,
    since: Since = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Only sagas that need attention: stuck, failing, or without a worker.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Show the page behind this saga.", autocompletion=saga_ids),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most N.")] = 50,
) -> None:
    """List sagas, newest first."""
    which = Filters(status=status, saga=saga, version=version, tag=tag, since=since, attention=attention)

    async def select(orchestrator: "Orchestrator") -> tuple[list[SagaSummary], int, int]:
        now_ns = orchestrator.engine.clock.now_ns()
        found = await orchestrator.list(limit=limit, after=after, **which.asked(now_ns))
        return found, await orchestrator.count(**which.asked(now_ns)), now_ns

    found, count, now_ns = ask(options.address, select)
    if options.json:
        output.document({"sagas": [views.summary(info) for info in found], "count": count})
    elif not found:
        found_none = "No sagas need attention" if attention else "No sagas found"
        output.say(f"{found_none} in {options.address.shown}{which.words}.")
    else:
        output.show(views.sagas_table(found, now_ns=now_ns, width=output.width(), reasons=attention))
        if count > len(found):
            output.say(f"Showing {len(found)} of {count}; use --limit or --after {found[-1].id} to see more.")


@command
def show(
    options: Options,
    saga_id: SagaId,
    *,
    payloads: Annotated[
        bool,
        typer.Option(
            "--payloads", help="Show its input and result, and the results of its steps. --json always has them."
        ),
    ] = False,
) -> None:
    """Show a saga's status and steps, and how to fix it.

    Exit code 1 if the saga failed: it is compensated, resolved, stuck or killed.
    """
    taken = ask(options.address, lambda orchestrator: snapshot.take(orchestrator, saga_id))
    if options.json:
        output.document(views.document_of(taken))
    else:
        option = options.address.option
        ascii_only = not output.can_write(views.EVERY_SIGN)
        page = views.Page(snapshot=taken, width=output.width(), ascii=ascii_only, payloads=payloads, option=option)
        output.show(page.lines())
    raise typer.Exit(output.code_of(taken.info.status))


@command
def history(options: Options, saga_id: SagaId) -> None:
    """Print a saga's journal, oldest entry first."""
    entries = ask(options.address, lambda orchestrator: snapshot.journal(orchestrator, saga_id))
    if options.json:
        output.document(views.journal_document(saga_id, entries))
    else:
        output.show(views.journal_table(entries, width=output.width()))


@command
def versions(options: Options, *, saga: SagaName = None) -> None:
    """List the versions of sagas, with their open sagas and workers.

    The verdict says which versions can be retired, and which have open sagas but no worker.
    """
    found = ask(options.address, lambda orchestrator: orchestrator.versions(saga))
    if options.json:
        output.document({"versions": found})
    elif found:
        output.show(views.versions_table(found, width=output.width()))
    else:
        output.say(f"No versions found in {options.address.shown}{Filters(saga=saga).words}.")
