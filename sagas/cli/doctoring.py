"""``doctor``: looks at a store from outside, and says what is wrong with it and what to do. It changes nothing."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import attrs
import typer

from durable_core import Finding, Level
from sagas.cli import screen
from sagas.cli.address import Address
from sagas.cli.exits import DONE, FAULTY
from sagas.cli.layout import Line, Piece, clean, padded, wrapped
from sagas.cli.options import Json, Store, common
from sagas.model.health import judged

STYLES: Mapping[Level, str] = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
INDENT = " " * 16


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("doctor")(doctor)


def doctor(
    ctx: typer.Context,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read every page of the database too.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Check a store: its files, its settings, and how its sagas fare.

    Nothing is changed, and workers may run meanwhile. Exit code 1 where something has failed; a warning is none.
    """
    given = common(ctx, store, as_json=as_json)
    findings = asyncio.run(_look(given.address, deep=deep))
    worst = max((finding.level for finding in findings), key=list(Level).index)
    if given.json:
        told = [attrs.asdict(finding) for finding in findings]
        screen.document({"store": given.address.shown, "level": worst, "findings": told})
    else:
        screen.show(list(_told(findings)))
    raise typer.Exit(FAULTY if worst is Level.FAIL else DONE)


async def _look(address: Address, *, deep: bool) -> Sequence[Finding]:
    from sagas.orchestrator import Orchestrator  # noqa: PLC0415 - slow to import, and `--help` needs none of it

    engine = Orchestrator(address.url, worker=False).engine  # not entered: that would write
    now_ns = engine.clock.now_ns()
    checkup = await engine.store.check_up(now_ns=now_ns, deep=deep)
    return [*checkup.findings, *([] if checkup.facts is None else judged(checkup.facts, now_ns=now_ns))]


def _told(findings: Sequence[Finding]) -> Iterator[Line]:
    for finding in findings:
        first, *more = wrapped(finding.what, width=screen.width(), indent=INDENT, first="")
        level = Piece(padded(finding.level, 4), STYLES[finding.level])
        yield (level, Piece(f"  {padded(clean(finding.check), 9)} "), *first)
        yield from more
        if finding.advice:
            yield from wrapped(f"-> {finding.advice}", width=screen.width(), indent=INDENT + "   ", first=INDENT)
