"""The secret that the tokens of callbacks derive from, where it is not the one that the store keeps.

Invariant: it is in no message, no log and no repr; what is kept of it is a key of fixed length.
"""

import hashlib
import os

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
