"""Where two calls differ, told without a value: pure functions of their encodings."""

from typing import Any

import msgspec
import pytest

from durable_core.model.differing import MOST, differing, digest


@pytest.mark.parametrize(
    ("one", "other", "places"),
    [
        ([1], [2], ("args[0]",)),
        ([1], [True], ("args[0]",)),
        ([1], [1.0], ("args[0]",)),
        ([1, 2], [1], ("args[1] (only in the journal)",)),
        ([1], [1, 2], ("args[1] (only in the code)",)),
        ([{"amount": 1, "item": "a"}], [{"amount": 2, "item": "a"}], ("args[0].amount",)),
        ([{"a": {"b": [1, 2]}}], [{"a": {"b": [1, 3]}}], ("args[0].a.b[1]",)),
        ([{"a": 1}], [{"b": 1}], ("args[0].a (only in the journal)", "args[0].b (only in the code)")),
        ([{"two words": 1}], [{"two words": 2}], ("args[0]['two words']",)),
        ({"args": [1], "kwargs": {"fast": True}}, {"args": [1], "kwargs": {"fast": False}}, ("fast",)),
        ([1], {"args": [1], "kwargs": {"fast": False}}, ("fast (only in the code)",)),
        ([None], [[]], ("args[0]",)),
    ],
)
def test_the_places_are_told(one: Any, other: Any, places: tuple[str, ...]):
    """Each place by its path; what one side lacks by which has it."""
    assert differing(msgspec.json.encode(one), msgspec.json.encode(other)) == places


def test_no_more_places_than_a_person_reads():
    """Many differences are cut short, and so is a long name."""
    found = differing(msgspec.json.encode([*range(50)]), msgspec.json.encode([*range(1, 51)]))
    assert len(found) == MOST + 1
    assert found[-1] == "..."
    (long,) = differing(msgspec.json.encode([{"x" * 999: 1}]), msgspec.json.encode([{"x" * 999: 2}]))
    assert len(long) < 60


@pytest.mark.parametrize(("one", "other"), [(b"[1]", b"[ 1]"), (b"\xff", b"[1]"), (None, b"[]")])
def test_what_differs_as_bytes_alone_is_said_so(one: bytes | None, other: bytes):
    """The same values in another encoding, and what is no JSON at all, differ in the encoding."""
    assert differing(one, other) == ("the encoding",)


def test_no_value_is_told():
    """Neither paths nor digests hold a value, and a digest cannot be tried out without its key."""
    secret = b'["4111111111111111"]'
    assert differing(secret, b'["0"]') == ("args[0]",)
    assert digest(secret, key=b"run 1") != digest(secret, key=b"run 2")
    assert digest(secret, key=b"run 1") == digest(secret, key=b"run 1")
    assert len(digest(None, key=b"")) == 10
