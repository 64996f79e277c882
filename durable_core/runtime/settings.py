"""How an engine runs."""

import hashlib
import os

import attrs

from durable_core.errors import DefinitionError

VARIABLE = "SAGAS_SECRET"
SHORTEST = 32
"""Bytes that a secret must have at least."""


def key_of(secret: str | bytes | None) -> bytes | None:
    """The key that a secret stands for; that of the environment where none is given; None where there is none either.

    Raises:
        DefinitionError: it is too short to be one.
    """
    where = "the secret" if secret is not None else VARIABLE
    given = os.environ.get(VARIABLE) or None if secret is None else secret
    if given is None:
        return None
    if not isinstance(given, str | bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(f"{where} is a {type(given).__name__}; give a text or bytes, or None")
    text = given.encode("utf-8", "surrogateescape") if isinstance(given, str) else given
    text = text.strip()
    if len(text) < SHORTEST:
        raise DefinitionError(
            f"{where} has {len(text)} bytes, and tokens of callbacks must not be guessed: give at least {SHORTEST} "
            "random ones, such as `openssl rand -hex 32` prints, or none to use the one that the store keeps"
        )
    return hashlib.blake2b(text, digest_size=32, person=b"sagas-secret").digest()


@attrs.frozen(kw_only=True)
class Settings:
    """How an engine runs; every field has a default that suits one process on one file."""

    worker: bool = True
    """Whether it executes runs; False only starts and observes."""
    concurrency: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Runs that may have something under way at once."""
    grace_s: float = 10.0
    """How long leaving waits for attempts under way."""
    store_timeout_s: float = 30.0
    """How long a call waits for a store that fails."""
    max_crashes: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    """After so many deaths of the process within one step the run is stuck."""
    secret: bytes | None = attrs.field(default=None, converter=key_of, repr=False)
    """What the tokens of callbacks derive from, instead of the secret that the store keeps.

    Given as text or bytes, at least 32 of them; default the environment's ``SAGAS_SECRET``. All processes on a store
    must agree on it. A token is good only under the secret that it was made with.
    """
