"""Which store a command works on: the option behind it, the option before it, or ``SAGAS_STORE``, in this order.

Invariant: a password in the address is never shown.
"""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from durable_core import StoreNotFound
from sagas.cli.exits import CommandError

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

VARIABLE = "SAGAS_STORE"
HIDDEN = "***"
PATIENCE_S = 5.0
"""How long a command waits for a store that does not answer; a worker waits for longer."""

# Up to the last @, for a password may hold one; the name before it must not hold a slash, or it is a path.
_PASSWORD = re.compile(r"(?<=://)([^:/?@]*):.*@")
_SECRET_OPTION = re.compile(r"([?&;][^=&;]*(?:pass|secret|token|key)[^=&;]*=)[^&;]*", re.IGNORECASE)


@attrs.frozen
class Address:
    """A store's address."""

    url: str = attrs.field(repr=False)
    given: bool
    """Whether it was given as an option, so that a command to type next needs it too."""

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return _SECRET_OPTION.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1:{HIDDEN}@", self.url))

    @property
    def option(self) -> str:
        """What a command to type next needs in order to find the same store."""
        return f" --store {shlex.quote(self.shown)}" if self.given else ""


def address_of(option: str | None, variable: str | None) -> Address:
    """The store to work on.

    Raises:
        CommandError: none was given, or one that ends with this process.
    """
    url = option or variable
    if not url:
        raise CommandError(
            f"which store? Give --store sqlite:///FILE.db, or set {VARIABLE}, to the address that the worker has"
        )
    if url.partition("://")[0] == "memory":
        raise CommandError(
            "a store in memory ends with the process that made it, so there is nothing to see from here; "
            "use a file: --store sqlite:///FILE.db"
        )
    return Address(url, given=option is not None)


def orchestrator_at(address: Address, *, create: bool = False, **settings: Any) -> "Orchestrator":
    """The orchestrator on this store, not entered yet. Only with ``create`` may entering it make a new store.

    Raises:
        StoreError: no such address, or no database there.
    """
    from sagas.orchestrator import Orchestrator  # noqa: PLC0415 - slow to import, and `--help` needs none of it

    if settings.get("worker") is False:
        settings.setdefault("store_timeout", PATIENCE_S)
    orchestrator = Orchestrator(address.url, **settings)
    if not create and hasattr(orchestrator.engine.store, "create"):
        vars(orchestrator.engine.store)["create"] = False  # it is a server's, which no look must fill
    path: str | None = getattr(orchestrator.engine.store, "path", None)  # of a store that is a file
    if not create and path is not None and not _holds_something(Path(path)):
        raise StoreNotFound(
            f"there is no store at {path}; check --store and {VARIABLE}, and the directory that you are in. "
            "`sagas worker` and `sagas start` make a new one"
        )
    return orchestrator


def _holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
