"""While a body is driven, this object stands where the running event loop would be.

A body may only await its context's operations. Whatever else it starts (``asyncio.sleep``, ``gather``, an HTTP call, an
anyio scope) asks for the running loop first, so it is caught at that very line, and recorded: swallowing the error
does not help. So is a step that the body calls as a plain function: nothing would be recorded, and nothing undone.
"""

import sys
from asyncio import AbstractEventLoop
from asyncio.events import _get_running_loop, _set_running_loop  # pyright: ignore[reportPrivateUsage]
from types import FrameType, TracebackType
from typing import Any, NoReturn, cast

from durable_core.errors import ForeignAwaitError
from durable_core.model.declared import DeclaredStep

ADVICE = {
    "create_future": "`await {s}.sleep(...)` for a pause, and a step for anything that touches the world outside",
    "call_later": "`await {s}.sleep(...)` for a pause",
    "call_at": "`await {s}.sleep(...)` for a pause, and a step's own timeout= for a time limit",
    "time": "a step's own timeout= for a time limit, and `await {s}.sleep(...)` for a pause",
    "create_task": "`async with {s}.parallel()` for work at the same time",
    "run_in_executor": "a step: a plain function runs on a thread",
    "current_task": "a step for anything that touches the world outside, and its own timeout= for a time limit",
}
ELSE = "a step for anything that touches the world outside, and `await {s}.sleep(...)` for a pause"


class LoopGuard:
    """Raises ``ForeignAwaitError`` for every use, and keeps the first one."""

    def __init__(self, loop: AbstractEventLoop | None) -> None:
        self.caught: ForeignAwaitError | None = None
        """The first that was caught since the body under way is driven; its driver takes it."""
        self.operations = "ctx"
        self.noun = "run"
        """What the body under way calls its context."""
        self._loop = loop
        self.entered = False

    @classmethod
    def here(cls) -> "LoopGuard":
        """In the place of the loop that runs here, or of none."""
        return cls(_get_running_loop())

    def enter(self) -> None:
        """Stand in for the running loop. Not to be entered twice: no body is driven from within another.

        Costs two system calls with ``leave`` (CPython notes the process id), so bodies are driven in batches.
        """
        if self.entered:
            raise RuntimeError("a body is driven while another one is")
        self.entered = True
        _set_running_loop(cast("AbstractEventLoop", self))

    def leave(self) -> None:
        """Put the running loop back."""
        _set_running_loop(self._loop)
        self.entered = False

    def refuse(self, asked: str) -> ForeignAwaitError:
        """The error for something foreign, remembered as caught."""
        advice = ADVICE.get(asked, ELSE).format(s=self.operations)
        error = ForeignAwaitError(
            f"{_line_of_body()}the body used asyncio itself ({asked}); a body may await only its own operations, "
            "because it is run again from its journal after a crash",
            f"Use {advice}. Then retry the {self.noun}",
        )
        if self.caught is None:
            self.caught = error
        return error

    def refuse_call(self, step: DeclaredStep[..., Any]) -> ForeignAwaitError:
        """The error for a step that the body calls itself, remembered as caught."""
        spelled = getattr(step.fn, "__name__", step.name)
        error = ForeignAwaitError(
            f"{_line_of_body()}the body calls {step.kind} {step.name!r} itself, so it would not be recorded and not "
            f"undone; write `await {self.operations}.{step.operation}({spelled}, ...)`",
            f"Then retry the {self.noun}",
        )
        if self.caught is None:
            self.caught = error
        return error

    def refuse_yield(self, coro: Any, awaited: object) -> ForeignAwaitError:
        """The error for a body that yielded something that is not a command."""
        frame = getattr(coro, "cr_frame", None)
        line = f"{frame.f_code.co_filename}:{frame.f_lineno}: " if frame is not None else ""
        error = ForeignAwaitError(
            f"{line}the body awaited {(type(awaited).__name__ if awaited is not None else 'a bare yield')}; a "
            "body may await only its own operations, because it is run again from its journal after a crash",
            f"Use {ELSE.format(s=self.operations)}. Then retry the {self.noun}",
        )
        if self.caught is None:
            self.caught = error
        return error

    def __getattr__(self, name: str) -> NoReturn:
        raise self.refuse(name)

    def __hash__(self) -> int:
        # asyncio.current_task() looks the running loop up in a dict; logging does so too (3.12), and that is harmless.
        caller = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the documented way to the caller
        if caller.f_globals.get("__name__") == "logging":
            return id(self)
        raise self.refuse("current_task")

    def __eq__(self, other: object) -> bool:
        return self is other


def judge_call(step: DeclaredStep[..., Any]) -> None:
    """Refuse a call of ``step`` that a body makes: the guard stands in for the loop just while a body is driven."""
    running = _get_running_loop()
    if isinstance(running, LoopGuard):
        raise running.refuse_call(step)


DeclaredStep.judge_call = staticmethod(judge_call)


def _line_of_body() -> str:
    """``file:line: `` of the innermost frame that is neither ours nor a library's; empty where there is none."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        filename = frame.f_code.co_filename
        ours = module.partition(".")[0] in {"durable_core", "asyncio", "sagas", "anyio", "sniffio", "httpx", "httpcore"}
        if not ours and "site-packages" not in filename:
            return f"{filename}:{frame.f_lineno}: "
        frame = frame.f_back
    return ""


def line_of(traceback: TracebackType | None) -> str:
    """``file:line: `` of the innermost frame of ``traceback``; empty where there is none."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}: "
