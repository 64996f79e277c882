"""Keys: a name plus its occurrence in its scope; names, suffixes and idempotency keys."""

import itertools

import pytest

from durable_core.errors import DefinitionError
from durable_core.model.keys import Scope, check_id, check_name, derived, idempotency_key, name_of, served


def test_a_key_is_the_name_and_from_the_second_time_its_occurrence():
    """`charge`, `charge#2`, `charge#3`; other names do not count."""
    scope = Scope()
    assert [scope.key(name) for name in ("charge", "ship", "charge", "charge")] == [
        "charge",
        "ship",
        "charge#2",
        "charge#3",
    ]


def test_a_new_step_between_moves_no_other_key():
    """Inserting a step of another name leaves the keys of all others as they were."""
    old, new = Scope(), Scope()
    before = [old.key(name) for name in ("reserve", "charge", "charge")]
    after = [new.key(name) for name in ("reserve", "inserted", "charge", "charge")]
    assert before == [key for key in after if key != "inserted"]


def test_inner_scopes_are_prefixes_with_counts_of_their_own():
    """A scope within has the outer's key as prefix; the same name opened twice is told apart."""
    outer = Scope()
    first, second = outer.inner("par"), outer.inner("par")
    assert [first.key("charge"), first.key("charge"), second.key("charge"), outer.key("charge")] == [
        "par/charge",
        "par/charge#2",
        "par#2/charge",
        "charge",
    ]
    assert first.inner("b").key("x") == "par/b/x"


@pytest.mark.parametrize(
    "key", ["charge", "charge#2", "par/charge", "par#2/b/charge#3", "charge~undo", "par/charge#2~undo"]
)
def test_the_name_can_be_read_from_any_key(key: str):
    """Scope, occurrence and suffix come off."""
    assert name_of(key) == "charge"


def test_a_serving_steps_key_tells_whom_it_serves():
    """A compensation's key is its step's with a suffix; a step serves none but itself."""
    assert derived("par/charge#2", "undo") == "par/charge#2~undo"
    assert served("par/charge#2~undo") == "par/charge#2"
    assert served("charge") == "charge"


@pytest.mark.parametrize("name", ["charge", "reserve_stock", "Größe prüfen", "a" * 200, "send e-mail"])
def test_printable_names_are_taken(name: str):
    """A name may hold spaces and any script, up to 200 characters."""
    assert check_name(name, what="the step") == name


@pytest.mark.parametrize("name", ["", "a" * 201, "a/b", "a#2", "a~undo", "line\nbreak", "\x00"])
def test_names_that_would_break_a_key_are_refused(name: str):
    """Empty, too long, unprintable, or holding a separator of keys: refused with what has that name."""
    with pytest.raises(DefinitionError, match="the step charge"):
        check_name(name, what="the step charge")


def test_a_name_is_a_text():
    """Anything else is refused, and shown."""
    with pytest.raises(DefinitionError, match="the step charge is named 7"):
        check_name(7, what="the step charge")


@pytest.mark.parametrize("run_id", ["", "i" * 501, "line\nbreak", 7, None])
def test_ids_that_cannot_be_typed_again_are_refused(run_id: object):
    """An id is a printable text of 1 to 500 characters; the message says that nothing was started."""
    with pytest.raises(DefinitionError, match="give a text of 1 to 500 printable characters; nothing was started"):
        check_id(run_id)


def test_an_id_is_no_address_of_a_child():
    """A slash stands between a parent's id and its child's key."""
    check_id("i" * 500)
    with pytest.raises(DefinitionError, match="the id 'a/b' cannot be used: `/` stands between"):
        check_id("a/b")


def test_idempotency_keys_are_stable_and_never_shared():
    """One run and step give one key for ever, 32 hex digits; any other run, step or compensation another."""
    uids, keys = [bytes(16), bytes(15) + b"\1"], ["charge", "charge#2", "charge~undo", "ship"]
    found = {idempotency_key(uid, key) for uid, key in itertools.product(uids, keys)}
    assert len(found) == len(uids) * len(keys)
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in found)
    assert idempotency_key(bytes(16), "charge") == "7677c72eb10686ea4193420f499ed036"  # what participants have stored
