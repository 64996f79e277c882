"""Tokens of callbacks, for hosts that mint none: which saga it is, and a proof that derives from a secret.

Invariant: nothing is stored. A token is checked against the callbacks of its run, where the run's uid is known.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable

import attrs

from durable_core import CallbackNotFound, DefinitionError
from durable_core.layer import EntryKind, JournalEntry

SHORTEST = 32
"""Bytes of a secret, as `Orchestrator` has it."""


@attrs.frozen
class Tokens:
    """Those of one run."""

    id: str
    uid: bytes
    secret: bytes

    def of(self, key: str) -> str:
        """The token of the callback at this key, the same each time."""
        proof = hashlib.blake2b(self.uid + key.encode(), key=self.secret, digest_size=32).digest()
        return f"{_in_url(self.id.encode())}.{_in_url(proof)}"

    def key_of(self, token: str, entries: Iterable[JournalEntry]) -> str | None:
        """The key of the callback that has this token; None where none of the run has it."""
        given = token.encode(errors="surrogatepass")
        keys = [entry.key for entry in entries if entry.kind == EntryKind.ARMED and entry.label == "callback"]
        return next((key for key in keys if hmac.compare_digest(self.of(key).encode(), given)), None)


def secret_of(given: str | bytes | None) -> bytes:
    """What proofs derive from: the secret that was given, else ``SAGAS_SECRET``, else nothing but the run's uid.

    Raises:
        DefinitionError: it is too short.
    """
    secret = os.environ.get("SAGAS_SECRET", "") if given is None else given
    stored = secret.encode() if isinstance(secret, str) else secret
    if (stored or given is not None) and len(stored) < SHORTEST:
        raise DefinitionError(f"the secret has {len(stored)} bytes", f"Give it at least {SHORTEST}")
    return hashlib.blake2b(stored, digest_size=32).digest()


def id_of(token: object) -> str:
    """The saga that a token says it is of; only ``Tokens.key_of`` tells whether that is true.

    Raises:
        DefinitionError: it is no text.
        CallbackNotFound: it is no token of ours.
    """
    if not isinstance(token, str):
        raise DefinitionError(f"a token is a text, and this is a {type(token).__name__}; nothing was changed")
    where, dot, _ = token.partition(".")
    try:
        id = base64.urlsafe_b64decode(where + "=" * (-len(where) % 4)).decode()
    except (ValueError, binascii.Error):
        raise forged() from None
    if not dot or not id:
        raise forged()
    return id


def forged() -> CallbackNotFound:
    """The error for a token that no callback has."""
    return CallbackNotFound("no callback has this token", "Check that it was copied whole, and the namespace")


def _in_url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
