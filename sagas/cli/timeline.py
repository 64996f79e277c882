"""One saga as a person reads it: how it stands, what to do about it, and its steps in order.

Invariant: pure text. Colours repeat what the words and signs say already, and payloads are left out unless asked for.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import attrs
import msgspec

from sagas.cli.layout import Column, Line, Piece, Table, clean, wrapped
from sagas.cli.looking import Seen
from sagas.cli.mending import remedies
from sagas.cli.times import duration, moment
from sagas.cli.words import ASCII_BRANCH, BRANCH, SIGNS, UNLISTED, meaning
from sagas.model.info import SagaInfo, SagaStatus, StepState, at

LABEL = 9
COLUMNS = (Column("step"), Column("kind"), Column("attempts", right=True), Column("status"), Column("took", right=True))
INDENT = "  "
UNDER = " " * 6


@attrs.frozen(kw_only=True)
class Look:
    """How to show it."""

    width: int = 80
    ascii: bool = False
    """Use ASCII signs only."""
    payloads: bool = False
    option: str = ""
    """What a command to type next needs to find the store."""


def timeline(seen: Seen, look: Look) -> list[Line]:
    """The whole page for one saga."""
    return [*_head(seen, look), (), *_steps(seen, look)]


def _head(seen: Seen, look: Look) -> Iterator[Line]:
    info = seen.info
    told = meaning(info)
    yield (
        Piece("saga".ljust(LABEL), "dim"),
        Piece(clean(info.id), "bold"),
        Piece(f"  {clean(info.saga)} v{info.version}"),
    )
    status = f"{info.status.upper()}: {told.text}"
    yield from _labelled("status", status, look, style=told.style)
    yield from _times(seen, look)
    if seen.error is not None and (info.reason is None or seen.error not in info.reason):
        yield from _labelled("error", seen.error, look, style="red")
    if info.status is SagaStatus.STUCK:
        reason = (info.reason or "none was recorded").removeprefix(f"saga {info.id}: ")
        yield from _labelled("reason", reason, look)
    for place, remedy in enumerate(remedies(info, option=look.option)):
        yield Piece(("to mend" if place == 0 else "or").ljust(LABEL), "dim"), Piece(clean(remedy.command), "bold")
        yield from wrapped(remedy.effect, width=look.width, indent=" " * (LABEL + 2), style="dim")
    if info.status_detail is not None:
        yield from _labelled("detail", _json(info.status_detail), look)
    if look.payloads:
        yield from _labelled("input", _json(info.input), look)
        yield from _labelled("result", _json(info.result), look)


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
    for step in info.steps:
        _row(table, step, seen, look, undoes=None)
        if step.compensation is not None:
            _row(table, step.compensation, seen, look, undoes=step)
    return table.lines()


def _no_steps(info: SagaInfo) -> str:
    if info.status is SagaStatus.PENDING:
        served = f"{info.saga} v{info.version}"
        return f"No step has begun. Is there a worker (`sagas worker MODULE`) that serves {served}?"
    return "No step has begun."


def _row(table: Table, state: StepState, seen: Seen, look: Look, *, undoes: StepState | None) -> None:
    sign, plain_sign, style = SIGNS.get(state.status, UNLISTED)
    drawn = plain_sign if look.ascii else sign
    if undoes is None:
        title = f"{drawn} {clean(state.key)}"
    else:
        title = f"  {ASCII_BRANCH if look.ascii else BRANCH}{drawn} undo {clean(undoes.key)}"
    table.row(
        (
            Piece(title, style),
            Piece(state.kind),
            Piece(str(state.attempts)),
            Piece(state.status.replace("_", " "), style),
            Piece(_took(state, at(seen.now_ns), over=seen.info.ended_at is not None)),
        ),
        list(_under(state, look)),
    )


def _under(state: StepState, look: Look) -> Iterator[Line]:
    if state.error is not None:
        yield from wrapped(state.error, width=look.width, indent=UNDER + INDENT, first=UNDER, style="red")
    if look.payloads and state.result is not None:
        yield from wrapped(f"result {_json(state.result)}", width=look.width, indent=UNDER + INDENT, first=UNDER)


def _took(state: StepState, now: datetime, *, over: bool) -> str:
    if state.started_at is None:
        return ""
    if state.ended_at is not None:
        return duration(state.ended_at - state.started_at)
    return "" if over else f"{duration(now - state.started_at)} so far"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
