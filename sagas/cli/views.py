"""Sagas, versions and journals as people read them, and as ``--json`` writes them.

Invariants: pure; colours repeat what the words and signs say already; payloads are left out unless asked for. The keys
of the documents are part of the public contract.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import attrs
import msgspec

from durable_core import HistoryEntry as Entry
from durable_core import VersionVerdict
from durable_core.layer import Codec, at
from sagas.check.fingerprint import SHORT
from sagas.cli.durations import minute, moment, shown
from sagas.cli.output import Column, Line, Piece, Table, clean, wrapped
from sagas.cli.remedies import remedies
from sagas.cli.snapshot import Snapshot
from sagas.model.info import SagaInfo, SagaSummary, StepState
from sagas.model.phases import SagaStatus
from sagas.model.versions import VersionInfo


class Meaning(NamedTuple):
    """A saga's status, for a reader who sees it for the first time."""

    text: str
    """With the cause at ``{why}``."""
    style: str


MEANINGS: Mapping[SagaStatus, Meaning] = {
    SagaStatus.PENDING: Meaning("not started yet; waiting for a worker that serves it", ""),
    SagaStatus.RUNNING: Meaning("running on a worker", "cyan"),
    SagaStatus.WAITING: Meaning("waiting for a time, an answer or a retry", "cyan"),
    SagaStatus.COMPENSATING: Meaning("rolling back{why}", "yellow"),
    SagaStatus.STUCK: Meaning("it cannot continue without your help", "bold red"),
    SagaStatus.COMPLETED: Meaning("done", "bold green"),
    SagaStatus.COMPENSATED: Meaning("rolled back{why}; every completed step was undone", "yellow"),
    SagaStatus.RESOLVED: Meaning("rolled back{why}, with the help of an operator", "yellow"),
    SagaStatus.KILLED: Meaning("ended by an operator; nothing was undone", "red"),
}
UNSERVED: Mapping[SagaStatus, Meaning] = {
    SagaStatus.RUNNING: Meaning("started, but no worker serves its version", "bold red"),
    SagaStatus.WAITING: Meaning("ready to continue, but no worker serves its version", "bold red"),
    SagaStatus.PENDING: Meaning("not started yet; no worker serves its version", "bold red"),
    SagaStatus.COMPENSATING: Meaning("to be rolled back{why}, but no worker serves its version", "bold red"),
}
"""The same while no living worker serves the saga's version."""
CAUSES: Mapping[str | None, str] = {
    None: "",
    "failed": " because a step or the saga's own code failed",
    "cancelled": " because it was cancelled",
    "deadline": " because its deadline passed",
}


class Sign(NamedTuple):
    """A step's status at a glance."""

    sign: str
    ascii: str
    style: str


SIGNS: Mapping[str, Sign] = {
    "pending": Sign("·", ".", "dim"),
    "running": Sign("▶", ">", "cyan"),
    "succeeded": Sign("✓", "+", "green"),
    "rejected": Sign("✗", "x", "red"),
    "failed": Sign("✗", "x", "red"),
    "unknown": Sign("?", "?", "bold red"),
    "skipped": Sign("»", "-", "yellow"),
    "compensated": Sign("↩", "<", "yellow"),
    "compensation_failed": Sign("!", "!", "bold red"),
}
UNLISTED = Sign(" ", " ", "")
WAITING_KINDS = frozenset({"sleep", "callback"})
WAITS: Mapping[str, str] = {"running": "waiting", "succeeded": "over", "skipped": "given up"}
"""The status of a sleep or callback, since nothing runs during it."""
ONCE = WAITING_KINDS | {"child"}
"""Kinds without a number of attempts."""
BRANCH, ASCII_BRANCH = "└ ", "` "
EVERY_SIGN = BRANCH + "".join(sign.sign for sign in SIGNS.values())
"""If stdout cannot write these, the ASCII signs are used."""


LABEL = 9
INDENT = "  "
UNDER = " " * 6
OF_SAGAS = (
    Column("id"),
    Column("saga"),
    Column("status"),
    Column("started (UTC)", optional=True, yields=True),
    Column("duration", right=True, optional=True),
)
OF_ENTRIES = (
    Column("entry"),
    Column("key"),
    Column("attempt", right=True, optional=True),
    Column("detail"),
    Column("after", right=True),
)
OF_VERSIONS = (
    Column("saga"),
    Column("verdict"),
    Column("open", right=True),
    Column("ended", right=True),
    Column("workers", right=True),
    Column("fingerprint", optional=True),
)
VERDICTS = {VersionVerdict.UNSERVED: "bold red", VersionVerdict.IN_USE: "green"}
OF_STEPS = (
    Column("step"),
    Column("kind", optional=True),
    Column("attempts", right=True),
    Column("status"),
    Column("took", right=True),
)
TO_DO = {SagaStatus.STUCK: "to fix", SagaStatus.KILLED: "to undo"}
"""The label of the first command."""
OF_A_SAGA = (
    "id", "saga", "version", "status", "cause", "paused", "reason", "stuck_on",
    "created_at", "updated_at", "ended_at", "wake_at", "tags",
    "restarted_from", "restarted_as",
)  # fmt: skip


def meaning(info: SagaSummary) -> Meaning:
    """The saga's status in words."""
    known = MEANINGS[info.status]
    text, style = UNSERVED.get(info.status, known) if info.unserved else known
    words = text.format(why=CAUSES.get(info.cause, f" ({info.cause})"))
    return Meaning(f"{words}; paused by an operator, so no new step starts" if info.paused else words, style)


def sagas_table(found: Sequence[SagaSummary], *, now_ns: int, width: int, reasons: bool = False) -> list[Line]:
    """One row for each saga; with ``reasons``, beneath it why it needs attention."""
    table = Table(OF_SAGAS, width=width)
    for info in found:
        table.row(
            (
                Piece(clean(info.id), "bold"),
                Piece(f"{clean(info.saga)} v{info.version}"),
                Piece(_status(info), MEANINGS[info.status].style),
                Piece(minute(info.created_at)),
                Piece(shown((info.ended_at or at(now_ns)) - info.created_at)),
            ),
            wrapped(_reason(info), width=width, indent=UNDER, style="red") if reasons and info.reason else (),
        )
    return table.lines()


def versions_table(found: Sequence[VersionInfo], *, width: int) -> list[Line]:
    """One row for each version; beneath it its open sagas by status, and the workers that serve it."""
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
    lines = [f"open: {', '.join(f'{count} {status}' for status, count in info.open.items())}"] if info.open else []
    lines += [f"served by {', '.join(map(clean, info.workers))}"] if info.workers else []
    if info.verdict is VersionVerdict.UNSERVED:
        lines.append("start a worker that has this version")
    for line in lines:
        yield from wrapped(line, width=width, indent=UNDER + "  ", first=UNDER, style="dim")


def _reason(info: SagaSummary) -> str:
    """Why it needs attention, without its id, which stands beside it."""
    return (info.reason or "no reason was recorded").replace(f"saga {info.id}: ", "")


def _status(info: SagaSummary) -> str:
    status = info.status.value if info.cause is None else f"{info.status} ({info.cause})"
    return f"{status}, paused" if info.paused else status


def journal_table(entries: Sequence[Entry], *, width: int) -> list[Line]:
    """One row for each entry; beneath it its actor and note, and its error."""
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
                Piece(shown(entry.at - entries[0].at)),
            ),
            list(_under_entry(entry, width)),
        )
    title = f"First entry: {moment(entries[0].at)}. The column `after` counts from it."
    return [*wrapped(title, width=width, indent=""), (), *table.lines()]


def _under_entry(entry: Entry, width: int) -> Iterator[Line]:
    if entry.actor or entry.note:
        signature = f"by {entry.actor or 'somebody'}" + (f": {entry.note}" if entry.note else "")
        yield from wrapped(signature, width=width, indent=UNDER + "  ", first=UNDER, style="yellow")
    if entry.error is not None:
        yield from wrapped(entry.error, width=width, indent=UNDER + "  ", first=UNDER, style="red")


@attrs.frozen(kw_only=True)
class Page:
    """Everything about one saga: its status, the commands that help it, and its steps in order."""

    snapshot: Snapshot
    width: int = 80
    ascii: bool = False
    """Use ASCII signs only."""
    payloads: bool = False
    """Show its input, its result and those of its steps."""
    option: str = ""
    """Ends each command to type next, so that it finds the store."""

    def lines(self) -> list[Line]:
        """The page."""
        return [*self._head(), (), *self._steps()]

    def _head(self) -> Iterator[Line]:
        snapshot, info = self.snapshot, self.snapshot.info
        yield _named("saga", info)
        if snapshot.is_child:
            yield _named("part of", snapshot.root)
        text, style = meaning(info)
        yield from self._labelled("status", f"{info.status.upper()}: {text}", style=style)
        yield from self._times()
        for label, ids in (("restarts", (info.restarted_from,)), ("again as", info.restarted_as)):
            if any(ids):
                yield from self._labelled(label, ", ".join(map(str, ids)))
        yield from self._standing()
        if info.status_detail is not None:
            yield from self._labelled("detail", _json(info.status_detail))
        if self.payloads:
            yield from self._labelled("input", _json(info.input))
            yield from self._labelled("result", _json(info.result))

    def _standing(self) -> Iterator[Line]:
        """What it waits for or is stuck on, and what helps."""
        snapshot, info = self.snapshot, self.snapshot.info
        if info.tags:
            yield from self._labelled("tags", ", ".join(f"{key}={value}" for key, value in info.tags.items()))
        if snapshot.error is not None and (info.reason is None or snapshot.error not in info.reason):
            yield from self._labelled("error", snapshot.error, style="red")
        if info.status is SagaStatus.STUCK or (info.ended_at is None and info.reason is not None):
            yield from self._labelled("reason", _reason(snapshot.root))
        if snapshot.recorded:
            who = f"a worker that serves {snapshot.root.saga} v{snapshot.root.version} takes it up"
            yield from self._labelled("recorded", f"{'; '.join(snapshot.recorded)}: {who}")
        label = TO_DO.get(snapshot.root.status, "continue")
        for place, remedy in enumerate(remedies(snapshot, option=self.option)):
            yield Piece((label if place == 0 else "or").ljust(LABEL), "dim"), Piece(clean(remedy.command), "bold")
            yield from wrapped(remedy.effect, width=self.width, indent=" " * (LABEL + 2), style="dim")

    def _times(self) -> Iterator[Line]:
        info = self.snapshot.info
        lasted = shown((info.ended_at or at(self.snapshot.now_ns)) - info.created_at)
        if info.ended_at is not None:
            yield from self._labelled("started", moment(info.created_at))
            yield from self._labelled("ended", f"{moment(info.ended_at)}, after {lasted}")
            return
        yield from self._labelled("started", f"{moment(info.created_at)}, {lasted} ago")
        yield from self._labelled("changed", moment(info.updated_at))
        if info.wake_at is not None and info.status in (SagaStatus.WAITING, SagaStatus.COMPENSATING):
            yield from self._labelled("resumes", f"{moment(info.wake_at)}, or earlier if something arrives")

    def _labelled(self, label: str, text: str, *, style: str = "") -> Iterator[Line]:
        for place, line in enumerate(wrapped(text, width=self.width, indent=" " * LABEL, style=style)):
            yield (Piece(label.ljust(LABEL), "dim"), *line[1:]) if place == 0 else line

    def _steps(self) -> list[Line]:
        info = self.snapshot.info
        if info.steps:
            table = Table(OF_STEPS, width=self.width, indent=INDENT)
            self._rows(table, info.steps, self.snapshot.prefix, depth=0)
            return table.lines()
        text = "No step has started."
        if info.status is SagaStatus.PENDING:
            text += f" Start a worker that serves {info.saga} v{info.version}: `sagas worker MODULE`."
        return wrapped(text, width=self.width, indent="")

    def _rows(self, table: Table, steps: Sequence[StepState], prefix: str, *, depth: int) -> None:
        """Add a row for each step, and beneath it its compensation, or the steps of the child saga."""
        for step in steps:
            key = prefix + step.key
            self._row(table, step, title=step.key, depth=depth, due=self.snapshot.due.get(key))
            if step.compensation is not None:
                self._row(table, step.compensation, title=f"undo {step.key}", depth=depth + 1, due=None)
            self._rows(table, self.snapshot.inner.get(key, ()), f"{key}/", depth=depth + 1)

    def _row(self, table: Table, state: StepState, *, title: str, depth: int, due: datetime | None) -> None:
        sign, plain_sign, style = SIGNS.get(state.status, UNLISTED)
        branch = (ASCII_BRANCH if self.ascii else BRANCH) if depth else ""
        drawn = plain_sign if self.ascii else sign
        status = WAITS.get(state.status, state.status) if state.kind in WAITING_KINDS else state.status
        table.row(
            (
                Piece(f"{INDENT * depth}{branch}{drawn} {clean(title)}", style),
                Piece(state.kind),
                Piece("" if state.kind in ONCE else str(state.attempts)),
                Piece(status.replace("_", " "), style),
                Piece(self._took(state)),
            ),
            list(self._under(state, UNDER + INDENT * depth, due)),
        )

    def _under(self, state: StepState, indent: str, due: datetime | None) -> Iterator[Line]:
        texts = [(state.error, "red")] if state.error is not None else []
        if due is not None and state.status == "running":
            texts.insert(0, (f"until {moment(due)}", "dim"))
        if self.payloads and state.result is not None:
            texts.append((f"result {_json(state.result)}", ""))
        for text, style in texts:
            yield from wrapped(text, width=self.width, indent=indent + INDENT, first=indent, style=style)

    def _took(self, state: StepState) -> str:
        if state.started_at is None:
            return ""
        if state.ended_at is not None:
            return shown(state.ended_at - state.started_at)
        over = self.snapshot.root.ended_at is not None
        return "" if over else f"{shown(at(self.snapshot.now_ns) - state.started_at)} so far"


def _named(label: str, info: SagaInfo) -> Line:
    return (
        Piece(label.ljust(LABEL), "dim"),
        Piece(clean(info.id), "bold"),
        Piece(f"  {clean(info.saga)} v{info.version}"),
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def summary(info: SagaSummary) -> dict[str, Any]:
    """A saga in a list."""
    return {name: getattr(info, name) for name in OF_A_SAGA}


def document_of(snapshot: Snapshot) -> dict[str, Any]:
    """A saga whole: the fields of ``SagaInfo``. An exception is its class and message, a value is as it is stored."""
    info = snapshot.info
    found = {each.name: getattr(info, each.name) for each in attrs.fields(SagaInfo)}
    found |= {"error": snapshot.error, "steps": [_step_document(each) for each in info.steps]}
    return found | {name: plain(found[name]) for name in ("input", "result", "status_detail")}


def _step_document(state: StepState) -> dict[str, Any]:
    """A step with its compensation."""
    found = {each.name: getattr(state, each.name) for each in attrs.fields(StepState)}
    undo = state.compensation
    return found | {"compensation": None if undo is None else _step_document(undo)}


def journal_document(saga_id: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """A journal."""
    return {"id": saga_id, "entries": [attrs.asdict(entry) for entry in entries]}


def plain(value: Any) -> Any:
    """A value as it is stored, since it may be an instance of a class of the user's."""
    return msgspec.json.decode(Codec(limit=sys.maxsize).encode(value, what="the value to show"))
