"""Commands about a store as a whole: ``purge``, ``doctor``, ``migrate``. All of them may run beside workers."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated

import attrs
import typer

from durable_core import PurgeReport
from durable_core.layer import Finding, Level
from sagas.cli import output
from sagas.cli.durations import duration_of, retention_of, shown
from sagas.cli.options import Address, IdRetention, Options, SagaName, ask, command
from sagas.cli.output import DONE, FAULTY, Line, Piece, clean, padded, wrapped
from sagas.model.health import judged

STYLES: Mapping[Level, str] = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
INDENT = " " * 16


@command
def purge(
    options: Options,
    *,
    older_than: Annotated[
        str,
        typer.Option(
            metavar="AGE", help="Remove sagas that ended at least this long ago: 30d, 12h, 90s.", show_default=False
        ),
    ],
    archive: Annotated[
        str | None, typer.Option(metavar="FILE", help="First append each saga to FILE, as a line of JSON.")
    ] = None,
    saga: SagaName = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Remove at most N. [default: all]")] = None,
    id_retention: IdRetention = "90d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
) -> None:
    """Remove sagas that ended long ago.

    Open and stuck sagas stay, whatever their age. A killed saga can no longer be rolled back once it is removed.
    Workers may run at the same time.
    """
    age = duration_of(older_than, "--older-than")
    report = ask(
        options.address,
        lambda orchestrator: orchestrator.purge(
            older_than=age, saga=saga, limit=limit, archive=archive, dry_run=dry_run
        ),
        id_retention=retention_of(id_retention, "--id-retention"),
    )
    if not options.json:
        for text in _purged(report, age, archive):
            output.say(text)
        return
    output.document(
        {
            "dry_run": report.dry_run,
            "sagas": report.runs,
            "entries": report.entries,
            "archived": report.archived,
            "archive": archive,
            "ids_freed": report.ids_freed,
        }
    )


def _purged(report: PurgeReport, age: timedelta, archive: str | None) -> Iterator[str]:
    ended = f"{_count(report.runs, 'saga')} that ended" + (f" more than {shown(age)} ago" if age else "")
    if report.dry_run:
        yield f"Would purge {ended}. Nothing was removed."
        return
    yield f"Purged {ended}: {_count(report.entries, 'journal entry', 'journal entries')}."
    if archive is not None:
        yield f"Added {_count(report.archived, 'line')} to {archive}."
    if report.ids_freed:
        yield f"Freed {_count(report.ids_freed, 'id')} of earlier purges."


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


@command
def doctor(
    options: Options,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Also read every page of the database.")] = False,
) -> None:
    """Check a store: its files, its settings, and its sagas.

    It changes nothing, and workers may run at the same time. Exit code 1 if a check failed; warnings exit with 0.
    """
    findings = asyncio.run(_examine(options.address, deep=deep))
    worst = max((finding.level for finding in findings), key=list(Level).index)
    if options.json:
        listed = [attrs.asdict(finding) for finding in findings]
        output.document({"store": options.address.shown, "level": worst, "findings": listed})
    else:
        output.show([line for finding in findings for line in _finding_lines(finding)])
    raise typer.Exit(FAULTY if worst is Level.FAIL else DONE)


async def _examine(address: Address, *, deep: bool) -> Sequence[Finding]:
    from sagas.orchestrator import Orchestrator  # noqa: PLC0415 - slow to import, and `--help` needs none of it

    engine = Orchestrator(address.url, worker=False).engine  # not entered: that would write
    now_ns = engine.clock.now_ns()
    checkup = await engine.store.check_up(now_ns=now_ns, deep=deep)
    return [*checkup.findings, *([] if checkup.facts is None else judged(checkup.facts, now_ns=now_ns))]


def _finding_lines(finding: Finding) -> Iterator[Line]:
    first, *more = wrapped(finding.what, width=output.width(), indent=INDENT, first="")
    level = Piece(padded(finding.level, 4), STYLES[finding.level])
    yield (level, Piece(f"  {padded(clean(finding.check), 9)} "), *first)
    yield from more
    if finding.advice:
        yield from wrapped(f"-> {finding.advice}", width=output.width(), indent=INDENT + "   ", first=INDENT)


@command
def migrate(options: Options) -> None:
    """Create or upgrade the tables of a store. Safe to repeat.

    Workers create missing tables themselves, if their database role may. Stop workers of an older release first.
    """
    from durable_core.layer import migrate as migrated  # noqa: PLC0415 - only this command needs it

    store = options.address.shown
    step = asyncio.run(migrated(options.address.url))
    if options.json:
        output.document({"store": store, "before": step.before, "after": step.after})
    elif step.before == step.after:
        output.say(f"{store} is already at migration {step.after}. Nothing was changed.")
    else:
        output.say(f"Migrated {store} from {step.before} to {step.after}.")
