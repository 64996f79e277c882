"""Many sagas, or a saga's journal, as tables for a person."""

from collections.abc import Iterator, Sequence

from sagas.cli.layout import Column, Line, Piece, Table, clean, wrapped
from sagas.cli.times import duration, minute, moment
from sagas.cli.words import MEANINGS
from sagas.model.info import Entry, SagaInfo, at

OF_SAGAS = (Column("id"), Column("saga"), Column("status"), Column("started (UTC)"), Column("for", right=True))
OF_ENTRIES = (
    Column("what"),
    Column("about"),
    Column("attempt", right=True),
    Column("detail"),
    Column("after", right=True),
)
UNDER = " " * 6


def sagas(found: Sequence[SagaInfo], *, now_ns: int, width: int, reasons: bool = False) -> list[Line]:
    """One row for each saga; with ``reasons``, why somebody should look beneath it."""
    table = Table(OF_SAGAS, width=width)
    for info in found:
        table.row(
            (
                Piece(clean(info.id), "bold"),
                Piece(f"{clean(info.saga)} v{info.version}"),
                Piece(_status(info), MEANINGS[info.status].style),
                Piece(minute(info.created_at)),
                Piece(duration((info.ended_at or at(now_ns)) - info.created_at)),
            ),
            wrapped(reason_of(info), width=width, indent=UNDER, style="red") if reasons and info.reason else (),
        )
    return table.lines()


def reason_of(info: SagaInfo) -> str:
    """Why somebody should look at it, without the id that is told beside it."""
    return (info.reason or "none was recorded").removeprefix(f"saga {info.id}: ")


def _status(info: SagaInfo) -> str:
    told = info.status.value if info.cause is None else f"{info.status} ({info.cause})"
    return f"{told}, paused" if info.paused else told


def history(entries: Sequence[Entry], *, width: int) -> list[Line]:
    """One row for each entry, with who asked for it and what went wrong beneath."""
    if not entries:
        return [(Piece("Nothing has happened yet."),)]
    table = Table(OF_ENTRIES, width=width, flexible=1)
    digits = len(str(entries[-1].seq))
    for entry in entries:
        table.row(
            (
                Piece(f"{entry.seq:>{digits}} {entry.kind}"),
                Piece(clean(entry.key)),
                Piece(str(entry.attempt) if entry.attempt else ""),
                Piece(clean(entry.detail)),
                Piece(duration(entry.at - entries[0].at)),
            ),
            list(_under(entry, width)),
        )
    return [(Piece(f"The first entry is of {moment(entries[0].at)}; `after` counts from there."),), (), *table.lines()]


def _under(entry: Entry, width: int) -> Iterator[Line]:
    if entry.actor or entry.note:
        told = f"by {entry.actor or 'somebody'}" + (f": {entry.note}" if entry.note else "")
        yield from wrapped(told, width=width, indent=UNDER + "  ", first=UNDER, style="yellow")
    if entry.error is not None:
        yield from wrapped(entry.error, width=width, indent=UNDER + "  ", first=UNDER, style="red")
