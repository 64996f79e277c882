"""Tokens for hosts that mint none."""

import pytest

from durable_core import CallbackNotFound, DefinitionError
from durable_core.layer import EntryKind, JournalEntry
from sagas.hosts.tokens import Tokens, id_of, secret_of

SECRET = secret_of("s" * 32)
UID = b"u" * 16


def armed(*keys: str) -> list[JournalEntry]:
    """A journal that asks for these."""
    return [
        JournalEntry(1, seq, EntryKind.ARMED, key, 1, "callback", b"", None, None, 0, None, "host")
        for seq, key in enumerate(keys, 1)
    ]


def test_a_token_names_its_saga_and_finds_its_key():
    """Also for an id that is no ASCII, and among several callbacks."""
    tokens = Tokens("Müller 17", UID, SECRET)
    token = tokens.of("second")
    assert id_of(token) == "Müller 17"
    assert tokens.key_of(token, armed("first", "second")) == "second"
    assert tokens.key_of(token, armed("first")) is None


@pytest.mark.parametrize(
    "other",
    [Tokens("one", b"v" * 16, SECRET), Tokens("one", UID, secret_of("t" * 32)), Tokens("two", UID, SECRET)],
    ids=["run", "secret", "id"],
)
def test_a_token_of_another_one(other: Tokens):
    """It is good for its own run under its own secret alone."""
    assert Tokens("one", UID, SECRET).key_of(other.of("asked"), armed("asked")) is None


@pytest.mark.parametrize("token", ["", ".", "x", "!.x", "b25l", "_w.x", "\ud800", "é.x"])
def test_what_is_no_token(token: str):
    """A text that is no token of ours is no callback's, and is not looked up."""
    with pytest.raises(CallbackNotFound, match="no callback has this token"):
        id_of(token)


def test_a_token_that_is_no_text():
    """It is refused as a mistake of the caller."""
    with pytest.raises(DefinitionError, match="this is a bytes"):
        id_of(b"b25l.x")


@pytest.mark.parametrize("secret", ["", "s" * 31, b"s" * 31])
def test_a_short_secret(secret: str | bytes):
    """Less than 32 bytes are refused, nothing at all too where it is said."""
    with pytest.raises(DefinitionError, match="Give it at least 32"):
        secret_of(secret)


def test_the_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    """It counts where none is given; without any the run's uid alone makes the proof."""
    monkeypatch.setenv("SAGAS_SECRET", "s" * 32)
    assert secret_of(None) == SECRET
    monkeypatch.delenv("SAGAS_SECRET")
    assert secret_of(None) != SECRET
