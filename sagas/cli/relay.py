"""``relay``: hands the entries of one outbox on, beside workers or without any.

Invariant: it may run next to other relays of the same outbox, and be killed at any time: another one goes on in order.
"""

import asyncio
import os
from collections.abc import Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from sagas.cli import output
from sagas.cli.modules import outbox_at
from sagas.cli.options import Address, Json, Store, address_of, orchestrator_at, wants_json
from sagas.cli.output import Line, Piece, clean, tell, wrapped
from sagas.cli.worker import log, log_to_stderr, stop_on_signals
from sagas.tracing import configure, finish, is_set, wanted

if TYPE_CHECKING:
    from sagas.outbox import Outbox, RefusedEntry
    from sagas.outbox.serving import OutboxRelay


def relay(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:OUTBOX", help="The outbox: a module, and the variable in it.", show_default=False
        ),
    ],
    *,
    once: Annotated[bool, typer.Option("--once", help="Hand on what is committed now, then exit.")] = False,
    refused: Annotated[bool, typer.Option("--refused", help="Only list the entries that were refused.")] = False,
    retry: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Only have this refused entry handed on again. Repeat for more."),
    ] = None,
    drop: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Only delete this refused entry. Repeat for more.")
    ] = None,
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help="debug, info, warning or error; the log goes to stderr.")
    ] = "info",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Hand on what is committed in an outbox, until SIGTERM or Ctrl-C.

    Workers whose modules have the outbox do the same. Several may run: one at a time hands on, and another one
    continues within seconds if it dies. --refused, --retry and --drop need no store.
    """
    as_json = wants_json(ctx, given=as_json)
    outbox = outbox_at(target)
    if refused or retry or drop:
        asyncio.run(_operate(outbox, retry or [], drop or [], as_json=as_json))
        return
    address = address_of(ctx, store)
    log_to_stderr(log_level, as_json=as_json)
    if wanted() and not is_set():
        configure()
    asyncio.run(_relay(outbox, address, once=once, as_json=as_json))
    finish()


async def _relay(outbox: "Outbox[Any]", address: Address, *, once: bool, as_json: bool) -> None:
    from sagas.outbox.serving import OutboxRelay, checked  # noqa: PLC0415 - slow to import, and `--help` needs none

    checked([outbox], worker=True)
    try:
        async with orchestrator_at(address, create=True, worker=False) as orchestrator:
            relay = OutboxRelay(outbox, orchestrator.client)
            await relay.check()
            await (_once(relay, as_json=as_json) if once else _until_stopped(relay, address, as_json=as_json))
    finally:
        await _dispose(outbox)


async def _once(relay: "OutboxRelay", *, as_json: bool) -> None:
    try:
        await relay.once()
    finally:
        await relay.end(within_s=0)
    handed, refused = relay.relay.handed, relay.relay.refused
    if as_json:
        output.document({"handed_on": handed, "refused": refused})
        return
    output.say(f"Handed on: {handed}. Refused: {refused}.")


async def _until_stopped(relay: "OutboxRelay", address: Address, *, as_json: bool) -> None:
    say = log.info if as_json else tell  # a log of JSON objects contains no other lines
    stop = stop_on_signals(say)
    relay.begin()
    place = relay.rows.place
    if as_json:
        facts = {"relay": os.getpid(), "outbox": place, "store": address.shown}
        output.document(facts, indent=None)
    else:
        output.show([(Piece(clean(f"relay (pid {os.getpid()}) is ready: from {place} to {address.shown}")),)])
    await stop.wait()
    await relay.end(within_s=10)
    say("stopped; another relay can continue")


async def _operate(outbox: "Outbox[Any]", retry: Sequence[int], drop: Sequence[int], *, as_json: bool) -> None:
    """Act on refused entries; then list those that are left."""
    from sagas.outbox.serving import reached  # noqa: PLC0415 - slow to import, and `--help` needs none of it

    try:
        with reached(outbox.database.place):
            known = {each.id for each in await _answer(outbox.refused())}
            retried = await _answer(outbox.retry(*retry)) if retry else 0
            dropped = await _answer(outbox.drop(*drop)) if drop else 0
            left: list[RefusedEntry] = await _answer(outbox.refused())
    finally:
        await _dispose(outbox)
    if as_json:
        output.document({"retried": retried, "dropped": dropped, "refused": [attrs.asdict(each) for each in left]})
        return
    if retry or drop:
        output.say(f"Handed on again: {retried}. Deleted: {dropped}. Left: {len(left)}.")
    if missing := sorted({*retry, *drop} - known):
        output.say(f"No refused entry has the number {', '.join(map(str, missing))}.")
    output.show([line for entry in left for line in _lines(entry)] or [(Piece("No entry is refused."),)])


def _lines(entry: "RefusedEntry") -> list[Line]:
    about = entry.saga_id or "a callback by its token"
    head = f"{entry.id}  {entry.verb}  {clean(about)}  {clean(entry.saga or '')}".rstrip()
    when = f"refused {entry.refused_at:%Y-%m-%d %H:%M:%S}: "
    return [(Piece(head, "bold"),), *wrapped(when + entry.reason, width=output.width(), indent="    ")]


async def _answer(given: Any) -> Any:
    return await given if isawaitable(given) else given


async def _dispose(outbox: "Outbox[Any]") -> None:
    """Close the connections of the engine: one of an event loop cannot be closed after it."""
    await _answer(outbox.database.engine.dispose())
