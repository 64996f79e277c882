"""How an engine runs.

Invariant: the secret is in no message, log or repr; only a key of fixed length is kept of it.
"""

import hashlib
import os
from datetime import timedelta
from typing import Any, Self

import attrs

from durable_core.errors import DefinitionError
from durable_core.model.duration import NS, Duration, to_ns
from durable_core.model.retry import duration
from durable_core.ports import AttemptFaults

VARIABLE = "SAGAS_SECRET"
SHORTEST = 32
"""Bytes that a secret must have at least."""


def key_of(secret: str | bytes | None) -> bytes | None:
    """The key that derives from a secret, or else from the environment's; None if there is neither.

    Raises:
        DefinitionError: the secret is too short.
    """
    where = "the secret" if secret is not None else VARIABLE
    given = os.environ.get(VARIABLE) or None if secret is None else secret
    if given is None:
        return None
    if not isinstance(given, str | bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(f"{where} is a {type(given).__name__}", "Give a text or bytes, or None")
    text = given.encode("utf-8", "surrogateescape") if isinstance(given, str) else given
    text = text.strip()
    if len(text) < SHORTEST:
        raise DefinitionError(
            f"{where} has only {len(text)} bytes, so tokens of callbacks could be guessed: give at least {SHORTEST} "
            "random ones, such as `openssl rand -hex 32` prints, or no secret to use the one in the store"
        )
    return hashlib.blake2b(text, digest_size=32, person=b"sagas-secret").digest()


@attrs.frozen(kw_only=True)
class Settings:
    """How an engine runs; every field has a default that suits one process on one file."""

    worker: bool = True
    """Whether it executes runs; False only starts and observes."""
    concurrency: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Runs that may have something under way at once."""
    threads: int = attrs.field(default=32, validator=attrs.validators.ge(1))
    """Plain functions that may run at once, each on its own thread."""
    grace_s: float = 10.0
    """How long leaving waits for attempts under way."""
    store_timeout_s: float = 30.0
    """How long a call waits for a store that fails."""
    lease_s: float = attrs.field(default=15.0, validator=attrs.validators.gt(0))
    """How long a silent worker keeps its runs, in a store that cannot detect its death at once."""
    max_crashes: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    """After so many deaths of the process within one step the run is stuck."""
    secret: bytes | None = attrs.field(default=None, converter=key_of, repr=False)
    """The tokens of callbacks derive from it, instead of from the secret in the store.

    Text or bytes, at least 32 of them; by default the environment's ``SAGAS_SECRET``. All processes on a store
    must use the same one. A token is valid only under the secret that it was made with.
    """
    retention_ns: int | None = None
    """How long ended runs are kept; None: forever. Only workers purge."""
    id_retention_ns: int | None = 90 * 86_400 * NS
    """How long the ids of purged runs stay refused; None: forever."""
    faults: AttemptFaults | None = attrs.field(default=None, repr=False)
    """What a test has go wrong in attempts."""

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
        faults: AttemptFaults | None = None,
    ) -> Self:
        """Settings from arguments of users: durations are timedeltas, or seconds.

        Raises:
            DefinitionError: an argument is invalid; the message names it.
        """
        if not isinstance(worker, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"worker={worker!r} is invalid: it must be True or False.")
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
            faults=faults,
        )


def _count(value: Any, name: str) -> int:
    if type(value) is not int or value < 1:
        raise DefinitionError(f"{name}={value!r} is invalid: it must be an integer of at least 1.")
    return value


def _kept_ns(span: Duration | None, name: str) -> int | None:
    return None if span is None else to_ns(duration(span, name, zero=False))
