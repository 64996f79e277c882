"""One saga as a person reads it: how it stands, what to do about it, and its steps in order.

Invariant: pure text. Colours repeat what the words and signs say already, and payloads are left out unless asked for.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import attrs
import msgspec

from sagas.cli.layout import Column, Line, Piece, Table, clean, wrapped
from sagas.cli.lists import reason_of
from sagas.cli.looking import Seen
from sagas.cli.remedies import remedies
from sagas.cli.statuses import ASCII_BRANCH, BRANCH, ONCE, SIGNS, UNLISTED, WAITING_KINDS, WAITS, meaning
from sagas.cli.times import duration, moment
from sagas.model.info import SagaInfo, SagaStatus, StepState, at

LABEL = 9
COLUMNS = (Column("step"), Column("kind"), Column("attempts", right=True), Column("status"), Column("took", right=True))
INDENT = "  "
UNDER = " " * 6
TO_DO = {SagaStatus.STUCK: "to mend", SagaStatus.KILLED: "to undo"}
"""What the first of the commands is for."""


@attrs.frozen(kw_only=True)
class Look:
    """How to show it."""

    width: int = 80
    ascii: bool = False
    """Use ASCII signs only."""
    payloads: bool = False
    option: str = ""
    """What a command to type next needs to find the store."""


@attrs.frozen
class Page:
    """A saga, and how to show it."""

    seen: Seen
    look: Look


def timeline(seen: Seen, look: Look) -> list[Line]:
    """The whole page for one saga."""
    return [*_head(seen, look), (), *_steps(seen, look)]


def _head(seen: Seen, look: Look) -> Iterator[Line]:
    info = seen.info
    told = meaning(info)
    yield _named("saga", info)
    if seen.is_child:
        yield _named("part of", seen.root)
    status = f"{info.status.upper()}: {told.text}"
    yield from _labelled("status", status, look, style=told.style)
    yield from _times(seen, look)
    if seen.error is not None and (info.reason is None or seen.error not in info.reason):
        yield from _labelled("error", seen.error, look, style="red")
    if info.status is SagaStatus.STUCK or (info.ended_at is None and info.reason is not None):
        yield from _labelled("reason", reason_of(seen.root), look)
    label = TO_DO.get(seen.root.status, "to go on")
    for place, remedy in enumerate(remedies(seen, option=look.option)):
        yield Piece((label if place == 0 else "or").ljust(LABEL), "dim"), Piece(clean(remedy.command), "bold")
        yield from wrapped(remedy.effect, width=look.width, indent=" " * (LABEL + 2), style="dim")
    if info.status_detail is not None:
        yield from _labelled("detail", _json(info.status_detail), look)
    if look.payloads:
        yield from _labelled("input", _json(info.input), look)
        yield from _labelled("result", _json(info.result), look)


def _named(label: str, info: SagaInfo) -> Line:
    return (
        Piece(label.ljust(LABEL), "dim"),
        Piece(clean(info.id), "bold"),
        Piece(f"  {clean(info.saga)} v{info.version}"),
    )


def _times(seen: Seen, look: Look) -> Iterator[Line]:
    info = seen.info
    span = duration((info.ended_at or at(seen.now_ns)) - info.created_at)
    if info.ended_at is not None:
        yield from _labelled("time", f"started {moment(info.created_at)}, ended {moment(info.ended_at)}", look)
        yield from _labelled("", f"took {span}", look)
        return
    yield from _labelled("time", f"started {moment(info.created_at)}", look)
    yield from _labelled("", f"{span} so far, last change {moment(info.updated_at)}", look)
    if info.wake_at is not None and info.status in (SagaStatus.WAITING, SagaStatus.COMPENSATING):
        yield from _labelled("", f"goes on at {moment(info.wake_at)}, or earlier if something comes", look)


def _labelled(label: str, text: str, look: Look, *, style: str = "") -> Iterator[Line]:
    for place, line in enumerate(wrapped(text, width=look.width, indent=" " * LABEL, style=style)):
        yield (Piece(label.ljust(LABEL), "dim"), *line[1:]) if place == 0 else line


def _steps(seen: Seen, look: Look) -> list[Line]:
    info = seen.info
    if not info.steps:
        return wrapped(_no_steps(info), width=look.width, indent="")
    table = Table(COLUMNS, width=look.width, indent=INDENT)
    _rows(table, info.steps, seen.prefix, Page(seen, look), depth=0)
    return table.lines()


def _rows(table: Table, steps: Sequence[StepState], prefix: str, page: Page, *, depth: int) -> None:
    """The rows of these steps, each with its compensation, or with what it did as a child saga, beneath it."""
    for step in steps:
        key = prefix + step.key
        _row(table, step, page, title=step.key, depth=depth, due=page.seen.due.get(key))
        if step.compensation is not None:
            _row(table, step.compensation, page, title=f"undo {step.key}", depth=depth + 1, due=None)
        _rows(table, page.seen.inner.get(key, ()), f"{key}/", page, depth=depth + 1)


def _no_steps(info: SagaInfo) -> str:
    if info.status is SagaStatus.PENDING:
        served = f"{info.saga} v{info.version}"
        return f"No step has begun. Is there a worker (`sagas worker MODULE`) that serves {served}?"
    return "No step has begun."


def _row(table: Table, state: StepState, page: Page, *, title: str, depth: int, due: datetime | None) -> None:
    sign, plain_sign, style = SIGNS.get(state.status, UNLISTED)
    branch = (ASCII_BRANCH if page.look.ascii else BRANCH) if depth else ""
    drawn = plain_sign if page.look.ascii else sign
    told = WAITS.get(state.status, state.status) if state.kind in WAITING_KINDS else state.status
    table.row(
        (
            Piece(f"{INDENT * depth}{branch}{drawn} {clean(title)}", style),
            Piece(state.kind),
            Piece("" if state.kind in ONCE else str(state.attempts)),
            Piece(told.replace("_", " "), style),
            Piece(_took(state, at(page.seen.now_ns), over=page.seen.root.ended_at is not None)),
        ),
        list(_under(state, page.look, indent=UNDER + INDENT * depth, due=due)),
    )


def _under(state: StepState, look: Look, *, indent: str, due: datetime | None) -> Iterator[Line]:
    if due is not None and state.status == "running":
        yield from wrapped(f"until {moment(due)}", width=look.width, indent=indent + INDENT, first=indent, style="dim")
    if state.error is not None:
        yield from wrapped(state.error, width=look.width, indent=indent + INDENT, first=indent, style="red")
    if look.payloads and state.result is not None:
        told = f"result {_json(state.result)}"
        yield from wrapped(told, width=look.width, indent=indent + INDENT, first=indent)


def _took(state: StepState, now: datetime, *, over: bool) -> str:
    if state.started_at is None:
        return ""
    if state.ended_at is not None:
        return duration(state.ended_at - state.started_at)
    return "" if over else f"{duration(now - state.started_at)} so far"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
