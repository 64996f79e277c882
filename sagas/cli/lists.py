"""Many sagas, or a saga's journal, as tables for a person."""

from collections.abc import Iterator, Sequence

from sagas.cli.layout import Column, Line, Piece, Table, clean, wrapped
from sagas.cli.statuses import MEANINGS
from sagas.cli.times import duration, minute, moment
from sagas.model.fingerprint import SHORT
from sagas.model.info import Entry, SagaInfo, at
from sagas.model.versions import VersionInfo, VersionVerdict

OF_SAGAS = (Column("id"), Column("saga"), Column("status"), Column("started (UTC)"), Column("for", right=True))
OF_ENTRIES = (
    Column("what"),
    Column("about"),
    Column("attempt", right=True),
    Column("detail"),
    Column("after", right=True),
)
OF_VERSIONS = (
    Column("saga"),
    Column("verdict"),
    Column("open", right=True),
    Column("ended", right=True),
    Column("workers", right=True),
    Column("body"),
)
VERDICTS = {VersionVerdict.WAITING_IN_VAIN: "bold red", VersionVerdict.IN_USE: "green"}
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


def versions(found: Sequence[VersionInfo], *, width: int) -> list[Line]:
    """One row for each version, with how its open sagas stand and who serves it beneath."""
    table = Table(OF_VERSIONS, width=width)
    for each in found:
        table.row(
            (
                Piece(f"{clean(each.saga)} v{each.version}", "bold" if each.newest else ""),
                Piece(each.verdict.value, VERDICTS.get(each.verdict, "")),
                Piece(str(sum(each.open.values()))),
                Piece(str(each.ended)),
                Piece(str(len(each.workers))),
                Piece(each.fingerprint[:SHORT] or "-"),
            ),
            list(_of_version(each, width)),
        )
    return table.lines()


def _of_version(info: VersionInfo, width: int) -> Iterator[Line]:
    told = [f"open: {', '.join(f'{count} {status}' for status, count in info.open.items())}"] if info.open else []
    told += [f"served by {', '.join(map(clean, info.workers))}"] if info.workers else []
    if info.verdict is VersionVerdict.WAITING_IN_VAIN:
        told.append("start a worker that has this version")
    for line in told:
        yield from wrapped(line, width=width, indent=UNDER + "  ", first=UNDER, style="dim")


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
