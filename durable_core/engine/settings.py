"""How an engine runs."""

from datetime import timedelta
from typing import Any, Self

import attrs

from durable_core.engine.secret import key_of
from durable_core.errors import DefinitionError
from durable_core.model.duration import NS, Duration, to_ns
from durable_core.model.retry import duration


@attrs.frozen(kw_only=True)
class Settings:
    """How an engine runs; every field has a default that suits one process on one file."""

    worker: bool = True
    """Whether it executes runs; False only starts and observes."""
    concurrency: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Runs that may have something under way at once."""
    threads: int = attrs.field(default=32, validator=attrs.validators.ge(1))
    """Plain functions that may run at once, each on a thread of its own."""
    grace_s: float = 10.0
    """How long leaving waits for attempts under way."""
    store_timeout_s: float = 30.0
    """How long a call waits for a store that fails."""
    lease_s: float = attrs.field(default=15.0, validator=attrs.validators.gt(0))
    """How long a silent worker keeps its runs, in a store where its death cannot be seen at once."""
    max_crashes: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    """After so many deaths of the process within one step the run is stuck."""
    secret: bytes | None = attrs.field(default=None, converter=key_of, repr=False)
    """What the tokens of callbacks derive from, instead of the secret that the store keeps.

    Given as text or bytes, at least 32 of them; default the environment's ``SAGAS_SECRET``. All processes on a store
    must agree on it. A token is good only under the secret that it was made with.
    """
    retention_ns: int | None = None
    """How long ended runs are kept; None is for ever. Only workers purge."""
    id_retention_ns: int | None = 90 * 86_400 * NS
    """How long the ids of purged runs stay refused; None is for ever."""

    @classmethod
    def of(
        cls,
        *,
        worker: bool = True,
        concurrency: int = 1000,
        threads: int = 32,
        grace: Duration = timedelta(seconds=10),
        store_timeout: Duration = timedelta(seconds=30),
        lease: Duration = timedelta(seconds=15),
        max_crashes: int = 5,
        secret: str | bytes | None = None,
        retention: Duration | None = None,
        id_retention: Duration | None = timedelta(days=90),
    ) -> Self:
        """Settings as people give them: durations are timedeltas, or seconds.

        Raises:
            DefinitionError: one makes no sense; the message names it.
        """
        if not isinstance(worker, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"worker={worker!r} makes no sense: it must be True or False.")
        return cls(
            worker=worker,
            concurrency=_count(concurrency, "concurrency"),
            threads=_count(threads, "threads"),
            grace_s=duration(grace, "grace").total_seconds(),
            store_timeout_s=duration(store_timeout, "store_timeout").total_seconds(),
            lease_s=duration(lease, "lease", zero=False).total_seconds(),
            max_crashes=_count(max_crashes, "max_crashes"),
            secret=secret,
            retention_ns=_kept_ns(retention, "retention"),
            id_retention_ns=_kept_ns(id_retention, "id_retention"),
        )


def _count(value: Any, name: str) -> int:
    if type(value) is not int or value < 1:
        raise DefinitionError(f"{name}={value!r} makes no sense: it must be a whole number from 1 on.")
    return value


def _kept_ns(span: Duration | None, name: str) -> int | None:
    return None if span is None else to_ns(duration(span, name, zero=False))
