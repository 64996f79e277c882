"""The program ``sagas``: all its commands, and the border at which errors become messages and exit codes."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Annotated, Any, Protocol, runtime_checkable

import typer

from sagas.cli import (
    check,
    demo,
    diagram,
    export,
    init,
    operate,
    output,
    plan,
    relay,
    show,
    start,
    store,
    top,
    traces,
    worker,
)
from sagas.cli.options import BeforeCommand, Json, Store
from sagas.cli.output import DONE, INTERRUPTED, REFUSED, CommandError, refusal, tell
from sagas.errors import SagasError

ABOUT = """Run, start, inspect and operate sagas.

Name the store with --store, before or after the command, or in SAGAS_STORE.

Exit codes: 0 done; 1 the saga failed (compensated, resolved, stuck or killed), `check` found a fault, or `doctor` a
failure; 2 bad usage or an error, explained on stderr. Set SAGAS_DEBUG=1 to see the traceback of an error.
"""
COMMANDS: Mapping[str, Callable[..., Any]] = {
    "init": init.init,
    "demo": demo.demo,
    "worker": worker.worker,
    "start": start.start,
    "relay": relay.relay,
    "check": check.check,
    "plan": plan.plan,
    "diagram": diagram.diagram,
    "list": show.list_sagas,
    "show": show.show,
    "history": show.history,
    "versions": show.versions,
    "top": top.top,
    "retry": operate.retry,
    "skip": operate.skip,
    "resolve": operate.resolve,
    "cancel": operate.cancel,
    "rollback": operate.rollback,
    "kill": operate.kill,
    "pause": operate.pause,
    "resume": operate.resume,
    "restart": operate.restart,
    "purge": store.purge,
    "doctor": store.doctor,
    "migrate": store.migrate,
}
"""The commands in the order in which ``--help`` lists them."""
GROUPS: Mapping[str, tuple[str, Mapping[str, Callable[..., Any]]]] = {
    "callback": (
        "Answer a callback that a saga waits for.",
        {"complete": operate.complete_callback, "fail": operate.fail_callback, "heartbeat": operate.heartbeat},
    ),
    "export": ("Write a saga for another engine.", {"asl": export.asl}),
    "trace": ("Write a saga's trace to a file, or send it again.", {"export": traces.export, "send": traces.resend}),
}


def program() -> typer.Typer:
    """The whole command line."""
    app = _group(ABOUT, COMMANDS, name="sagas", pretty_exceptions_enable=False)
    app.callback()(_before)
    for name, (about, commands) in GROUPS.items():
        app.add_typer(_group(about, commands), name=name)
    return app


def _group(about: str, commands: Mapping[str, Callable[..., Any]], **settings: Any) -> typer.Typer:
    group = typer.Typer(help=about, no_args_is_help=True, rich_markup_mode=None, **settings)
    for name, command in commands.items():
        group.command(name)(command)
    return group


def _version(wanted: bool) -> None:  # noqa: FBT001 - how typer calls it
    if wanted:
        output.write(f"sagas {metadata.version('durable-sagas')}\n")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
]


def _before(ctx: typer.Context, *, store: Store = None, as_json: Json = False, _show_version: Version = False) -> None:
    ctx.obj = BeforeCommand(store=store, json=as_json)


@runtime_checkable
class _BadUsage(Protocol):
    """What the parser of the command line raises; typer does not export its class."""

    exit_code: int

    def format_message(self) -> str: ...
    def show(self) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code.

    Args:
        arguments: of the command line; default those of the process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    command = typer.main.get_command(program())
    try:
        code: int | None = command.main(args=given, prog_name="sagas", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the border of the program: a person gets a message, never a traceback
        if os.environ.get("SAGAS_DEBUG") == "1":
            traceback.print_exception(error)
        sys.exit(_refused_as_json(error) if "--json" in given else _refused(error))
    sys.exit(code or DONE)


def _refused(error: Exception) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    if isinstance(error, _BadUsage):
        error.show()
        return error.exit_code
    tell(f"error: {_message(error)}")
    return REFUSED


def _refused_as_json(error: Exception) -> int:
    """The same as one JSON document."""
    refusal(error, error.format_message() if isinstance(error, _BadUsage) else _message(error))
    return REFUSED


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, CommandError | SagasError) else _bug(error)


def _bug(error: Exception) -> str:
    return (
        f"unexpected {type(error).__name__}: {error}; this is a bug: run it again with SAGAS_DEBUG=1 and report the "
        "traceback"
    )
