"""The options that say which sagas a command is about, and what was asked with them."""

from datetime import timedelta
from typing import Annotated, Any

import attrs
import typer

from durable_core.layer import at
from sagas.cli.durations import since_of
from sagas.cli.output import CommandError

Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Only sagas with this tag; may be repeated.")
]
Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Only sagas started since: an age (12h, 30d), or a time (2026-08-01T10:00Z)."),
]
Version = Annotated[int | None, typer.Option(metavar="N", help="Only sagas of this version.")]


@attrs.frozen(kw_only=True)
class Filters:
    """What was typed; None and empty are no filter."""

    status: str | None = None
    saga: str | None = None
    version: int | None = None
    tag: list[str] | None = None
    since: str | None = None
    attention: bool = False

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return any(attrs.astuple(self))

    @property
    def words(self) -> str:
        """The filters that were given, for a message; empty if there were none."""
        given = [f"--tag {each}" for each in self.tag or ()]
        for name in ("status", "saga", "version", "since"):
            value = getattr(self, name)
            given += [] if value is None else [f"--{name} {value}"]
        return f" with {' '.join(given)}" if given else ""

    def asked(self, now_ns: int) -> dict[str, Any]:
        """The filters for the orchestrator, where it is ``now_ns``.

        Raises:
            CommandError: a tag has no value, or two have one key.
            BadParameter: ``since`` is neither an age nor a time.
        """
        since = None if self.since is None else since_of(self.since, "--since")
        return {
            "status": self.status,
            "saga": self.saga,
            "version": self.version,
            "tags": tags_of(self.tag),
            "since": at(now_ns) - since if isinstance(since, timedelta) else since,
            "attention": self.attention,
        }


def tags_of(given: list[str] | None) -> dict[str, str]:
    """The tags that were typed as ``key=value``.

    Raises:
        CommandError: one has no value, or two have one key.
    """
    found: dict[str, str] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise CommandError(f"--tag {text}: give a key and a value, as in customer=42; nothing was changed")
        if key in found:
            raise CommandError(f"--tag {text}: the key {key!r} is given twice; nothing was changed")
        found[key] = value
    return found
