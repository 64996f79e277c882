"""The options that many commands share, declared once, and the store that they name.

``@command`` gives a function ``--store`` and ``--json``, ``@signed_command`` also ``--actor`` and ``--note``; the
function receives them as one ``Options``. Invariant: a password in a store's address is never printed.
"""

import asyncio
import functools
import getpass
import inspect
import logging
import os
import re
import shlex
from collections.abc import Awaitable, Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import attrs
import msgspec
import typer

from durable_core import StoreNotFound
from sagas.cli.output import CommandError

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

P = ParamSpec("P")
T = TypeVar("T")

VARIABLE = "SAGAS_STORE"
HIDDEN = "***"
STORE_TIMEOUT_S = 5.0
"""How long a command waits for a store that does not answer; a worker waits longer."""

# Up to the last @, because a password may contain one; the name before it contains no slash, or it is a path.
_PASSWORD = re.compile(r"(?<=://)([^:/?@]*):.*@")
_SECRET_OPTION = re.compile(r"([?&;][^=&;]*(?:pass|secret|token|key)[^=&;]*=)[^&;]*", re.IGNORECASE)

Store = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help=f"The store, such as sqlite:///FILE.db. [default: ${VARIABLE}]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Actor = Annotated[
    str | None,
    typer.Option("--actor", metavar="NAME", help="Your name, for the journal. [default: your user name]"),
]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="The reason, for the journal.")]
SagaName = Annotated[str | None, typer.Option("--saga", metavar="NAME", help="Only sagas of this name.")]
IdRetention = Annotated[str, typer.Option(metavar="AGE", help="How long to refuse ids of purged sagas, or `forever`.")]
Modules = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE", help="The modules with the sagas: dotted names, or paths of .py files.", show_default=False
    ),
]


@attrs.frozen
class Address:
    """A store's address."""

    url: str = attrs.field(repr=False)
    given: bool
    """Whether it came as an option, so that the next command to type needs it too."""

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return _SECRET_OPTION.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1:{HIDDEN}@", self.url))

    @property
    def option(self) -> str:
        """What the next command to type needs in order to find the same store."""
        return f" --store {shlex.quote(self.shown)}" if self.given else ""


@attrs.frozen
class BeforeCommand:
    """The options that were given before the command's name."""

    store: str | None
    json: bool


@attrs.frozen
class Options:
    """The values of the shared options."""

    address: Address
    json: bool
    actor: str = ""
    note: str = ""

    @property
    def signed(self) -> dict[str, str]:
        """Who asks, and why, as the calls of an orchestrator take it."""
        return {"actor": self.actor, "note": self.note}


def command(function: Callable[Concatenate[Options, P], None]) -> Callable[..., None]:
    """Make a command of ``function``, with ``--store`` and ``--json``."""
    return _command(function, {"store": (Store, None), "as_json": (Json, False)})


def signed_command(function: Callable[Concatenate[Options, P], None]) -> Callable[..., None]:
    """Make a command of ``function``, with ``--actor``, ``--note``, ``--store`` and ``--json``."""
    signed: dict[str, tuple[Any, Any]] = {"actor": (Actor, None), "note": (Note, "")}
    return _command(function, signed | {"store": (Store, None), "as_json": (Json, False)}, signed=True)


def _command(
    function: Callable[Concatenate[Options, P], None], shared: dict[str, tuple[Any, Any]], *, signed: bool = False
) -> Callable[..., None]:
    """``function`` with the signature that typer reads: its own parameters, and the shared options after them."""
    call: Callable[..., None] = function

    @functools.wraps(function)
    def run(*, ctx: typer.Context, **given: Any) -> None:
        values = {name: given.pop(name) for name in shared}
        actor = _actor(values["actor"]) if signed else ""
        address, as_json = address_of(ctx, values["store"]), wants_json(ctx, given=values["as_json"])
        call(Options(address, as_json, actor, values.get("note", "")), **given)

    own = [*inspect.signature(function, eval_str=True).parameters.values()][1:]
    context = Parameter("ctx", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    added = [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in shared.items()
    ]
    vars(run)["__signature__"] = Signature([context, *own, *added])
    return run


def wants_json(ctx: typer.Context, *, given: bool) -> bool:
    """Whether ``--json`` was given, before the command's name or after it."""
    before = ctx.find_object(BeforeCommand)
    return given or (before is not None and before.json)


def _actor(given: str | None) -> str:
    """The actor as given, else the system's user; empty where the system does not know."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container; KeyError until Python 3.13
        return ""


def address_of(ctx: typer.Context, option: str | None) -> Address:
    """The store to work on: the option after the command, the one before it, or ``SAGAS_STORE``, in this order.

    Raises:
        CommandError: none was given, or one that ends with this process.
    """
    before = ctx.find_object(BeforeCommand)
    if option is None and before is not None:
        option = before.store
    url = option or os.environ.get(VARIABLE)
    if not url:
        raise CommandError(
            f"no store given: use --store sqlite:///FILE.db, or set {VARIABLE}, with the address that the worker uses"
        )
    if url.partition("://")[0] == "memory":
        raise CommandError(
            "a memory:// store ends with the process that created it, so no other process can see it; use a file: "
            "--store sqlite:///FILE.db"
        )
    return Address(url, given=option is not None)


def orchestrator_at(address: Address, *, create: bool = False, **settings: Any) -> "Orchestrator":
    """The orchestrator on this store, not entered yet. Entering it creates a new store only with ``create``.

    Raises:
        StoreError: the address is wrong, or there is no database.
    """
    from sagas.orchestrator import Orchestrator  # noqa: PLC0415 - slow to import, and `--help` needs none of it

    if settings.get("worker") is False:
        settings.setdefault("store_timeout", STORE_TIMEOUT_S)
    orchestrator = Orchestrator(address.url, **settings)
    store = orchestrator.engine.store
    if not create and hasattr(store, "create"):
        vars(store)["create"] = False  # on a server: a command that only reads must not create tables
    path: str | None = getattr(store, "path", None)  # of a store that is a file
    if not create and path is not None and not _holds_something(Path(path)):
        raise StoreNotFound(
            f"there is no store at {path}",
            f"Check --store, {VARIABLE} and the current directory. `sagas worker` and `sagas start` create a new store",
        )
    return orchestrator


def ask(address: Address, question: "Callable[[Orchestrator], Awaitable[T]]", **settings: Any) -> T:
    """Ask an orchestrator that runs no saga, on a store that exists."""

    async def asked() -> T:
        async with orchestrator_at(address, worker=False, **settings) as orchestrator:
            return await question(orchestrator)

    log, once = logging.getLogger("durable_core"), _Once()
    log.addFilter(once)
    try:
        return asyncio.run(asked())
    finally:
        log.removeFilter(once)


class _Once(logging.Filter):
    """Drops a message that was logged before, such as those of each attempt to reach a store."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._seen
        self._seen.add(message)
        return is_new


def _holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def json_of(text: str, *, what: str, unchanged: str, example: str = "teapot") -> Any:
    """The value of an argument that is JSON.

    Args:
        text: as typed; bytes that are no UTF-8 are kept as they are.
        what: the argument, for the message.
        unchanged: what has not happened, for the message.
        example: a text, for the message.

    Raises:
        CommandError: it is not JSON.
    """
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise CommandError(
            f"{what} is not JSON: {error}; {unchanged}. A JSON string needs its own quotes: '\"{example}\"'"
        ) from error
